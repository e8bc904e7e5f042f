// plotly, out of its gzip; then the figures.
async function unpack() {
  const packed = Uint8Array.from(atob(document.getElementById("plotly-gzip").textContent), (c) => c.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
  const script = document.createElement("script");
  script.textContent = await new Response(stream).text();
  document.head.append(script);
}

unpack()
  .then(() => {
    draw();
    follow();
    for (const listen of LISTENERS) listen();
    document.documentElement.dataset.ready = "yes";
    performance.mark("ready");
  })
  .catch((error) => {
    for (const plot of document.querySelectorAll(".plot")) plot.innerHTML = '<p class="failed">This browser cannot draw the figure; the numbers are in the tables.</p>';
    console.error(error);
  });
