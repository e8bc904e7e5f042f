"""The work of a decoder-only transformer from its shape, for models that nobody captures: 1.7 billion to a trillion
parameters.

Activations that are kept follow arXiv 2205.05198, equations 1 and 2; products and traffic are counted likewise.
"""

from __future__ import annotations

from dataclasses import dataclass

from planish.training.planning.work import Layer, Product, Recompute


@dataclass(frozen=True)
class Transformer:
    """The shape of a GPT or a Llama.

    Attributes:
        layers: Blocks.
        hidden: Width.
        heads: Of the queries.
        sequence: Tokens of one sample.
        vocabulary: Tokens that there are.
        feed: Width of the feed-forward part; 0 is four times `hidden`.
        key_heads: Heads of keys and values; 0 is as many as `heads`.
        gated: The feed-forward part has a third matrix (SwiGLU).
        fused_attention: Scores are never written out (FlashAttention, arXiv 2205.14135).
        tied: Embedding and head share their weight.
        dropout: There is dropout, whose masks are kept.
    """

    layers: int
    hidden: int
    heads: int
    sequence: int
    vocabulary: int
    feed: int = 0
    key_heads: int = 0
    gated: bool = False
    fused_attention: bool = False
    tied: bool = True
    dropout: bool = True

    def work(self, recompute: Recompute = "none") -> list[Layer]:
        """Embedding, blocks and head. A mask of one byte counts as half an element."""
        s, h, vocabulary = self.sequence, self.hidden, self.vocabulary
        own = 0 if self.tied else vocabulary * h
        embedding = Layer("embedding", traffic=2 * s * h, output=s * h, shared_parameters=vocabulary * h)
        logits = Product(2 * s * h * vocabulary, s, vocabulary, h, "columns")
        head = Layer(
            "head",
            (logits,),
            traffic=4 * s * h,
            shared_traffic=6 * s * vocabulary,  # softmax and loss, in 32 bits
            saved=4 * s * h,
            shared_saved=2 * s * vocabulary,
            output=0,
            reduced_backward=s * h,
            parameters=h,
            shared_parameters=own,
        )
        return [embedding, *(self._block(f"blocks.{index}", recompute) for index in range(self.layers)), head]

    def _block(self, path: str, recompute: Recompute) -> Layer:
        s, h = self.sequence, self.hidden
        keys = (self.key_heads or self.heads) * h // self.heads
        feed = self.feed or 4 * h
        depth = h // self.heads
        half = 0.5 if self.fused_attention else 1  # FlashAttention leaves out what the causal mask hides
        up = 2 if self.gated else 1
        scores = 2 * s * s * h * half
        products = (
            Product(2 * s * h * (h + 2 * keys), s, h + 2 * keys, h, "columns"),
            Product(scores, s, s, depth, "count", True),
            Product(scores, s, depth, s, "count", True),
            Product(2 * s * h * h, s, h, h, "inner"),
            Product(2 * s * h * up * feed, s, up * feed, h, "columns"),
            Product(2 * s * h * feed, s, h, feed, "inner"),
        )
        mask = 0.5 if self.dropout else 0
        written = 0 if self.fused_attention else self.heads * s * s
        return Layer(
            path,
            products,
            traffic=(8 + 6 + 2 * mask) * s * h,  # two norms, two sums with the residual and their dropout
            shared_traffic=(2 * (h + 2 * keys) + 2 * (1 + up) * feed) * s,  # layouts of heads, activation
            core_traffic=(4 + mask) * written,  # mask and softmax, dropout
            saved=(4 + 2 * mask) * s * h,
            shared_saved=(2 * h + 2 * keys + (1 + up) * feed) * s,
            core_saved=(2 + mask) * written,
            output=s * h,
            reduced=2 * s * h,
            reduced_backward=2 * s * h,
            parameters=2 * h,
            shared_parameters=h * (2 * h + 2 * keys) + (up + 1) * h * feed,
            like="block",
            recompute=recompute,
        )
