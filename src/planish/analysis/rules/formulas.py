"""Operations whose FLOPs need a formula: windows, transforms, factorizations, sorting, scattering."""

from __future__ import annotations

import math
from collections.abc import Callable

from planish.analysis.rules.call import Array, Call


def _window(c: Call) -> float:
    """Pooling: each result looks at one window."""
    kernel = c["kernel_size"]
    rank = next(r for r in (1, 2, 3) if f"{r}d" in c.op)
    return c.out.size * (math.prod(kernel) if len(kernel) > 1 else kernel[0] ** rank)


def _fft(real: bool) -> Callable[[Call], float]:
    """5 N log2 N for a complex transform of N numbers; half of it for a real one."""

    def flops(c: Call) -> float:
        wide = max(c.first, c.out, key=lambda array: array.size)
        dims = c.arguments.get("dim")
        axes = range(len(wide.shape)) if dims is None else dims if isinstance(dims, list | tuple) else [dims]
        points = math.prod(wide.shape[axis] for axis in axes)
        return (2.5 if real else 5) * wide.size * math.log2(max(points, 2))

    return flops


def _matrix(factor: float) -> Callable[[Call], float]:
    """`factor` · m · n · min(m, n) for each matrix of the first argument."""

    def flops(c: Call) -> float:
        *batch, m, n = c.first.shape
        return factor * math.prod(batch) * m * n * min(m, n)

    return flops


def _solve(c: Call) -> float:
    a, b = c.arrays[:2]
    n = a.shape[-1]
    return 2 / 3 * a.size * n + 2 * b.size * n


def _sort(c: Call) -> float:
    dim = c.arguments.get("dim")
    length = c.first.shape[dim] if isinstance(dim, int) and c.first.shape else c.first.size
    return c.first.size * math.log2(max(length, 2))


def _taps(flops: float, taps: int) -> Callable[[Call], float]:
    return lambda c: flops * taps * c.out.size


def _sources(name: str) -> Callable[[Call], float]:
    """One addition for each number that is scattered."""
    return lambda c: c[name].size if isinstance(c.arguments.get(name), Array) else c.out.size


def _pairs(flops: float) -> Callable[[Call], float]:
    return lambda c: flops * c.out.size * c.first.shape[-1]


def _embedding_bag(c: Call) -> float:
    return c["indices"].size * c["weight"].shape[-1]


FLOPS: dict[str, Callable[[Call], float]] = {
    **{f"{kind}_pool{rank}d": _window for kind in ("avg", "max") for rank in (1, 2, 3)},
    **{f"max_pool{rank}d_with_indices": _window for rank in (1, 2, 3)},
    **{f"fft_{name}": _fft(real=False) for name in ("fft", "ifft", "fft2", "ifft2", "fftn", "ifftn")},
    **{f"fft_{i}{kind}fft{n}": _fft(real=True) for i in ("", "i") for kind in "rh" for n in ("", "2", "n")},
    "_fft_c2c": _fft(real=False),
    "_fft_r2c": _fft(real=True),
    "_fft_c2r": _fft(real=True),
    "stft": lambda c: 2.5 * c.out.size * math.log2(max(c["n_fft"], 2)),
    "istft": lambda c: 2.5 * c.first.size * math.log2(max(c["n_fft"], 2)),
    **{name: _matrix(1 / 3) for name in ("cholesky", "linalg_cholesky", "linalg_cholesky_ex")},
    **{name: _matrix(2 / 3) for name in ("linalg_lu_factor", "linalg_lu_factor_ex", "linalg_lu", "linalg_ldl_factor")},
    **{name: _matrix(2 / 3) for name in ("det", "linalg_det", "linalg_slogdet", "slogdet", "logdet", "_linalg_det")},
    **{name: _matrix(2) for name in ("inverse", "linalg_inv", "linalg_inv_ex", "cholesky_inverse", "linalg_qr")},
    **{name: _matrix(9) for name in ("linalg_eigh", "linalg_eigvalsh", "_linalg_eigh")},
    **{name: _matrix(25) for name in ("linalg_eig", "linalg_eigvals", "linalg_svd", "linalg_svdvals", "_linalg_svd")},
    **{name: _matrix(25) for name in ("svd", "linalg_pinv", "pinverse", "linalg_matrix_rank", "linalg_lstsq")},
    **{name: _matrix(30) for name in ("matrix_exp", "linalg_matrix_exp")},
    **dict.fromkeys(("linalg_solve", "linalg_solve_ex", "_linalg_solve_ex", "linalg_lu_solve"), _solve),
    "linalg_solve_triangular": lambda c: c.arrays[1].size * c.first.shape[-1],
    "triangular_solve": lambda c: c.first.size * c.arrays[1].shape[-1],
    "cholesky_solve": lambda c: 2 * c.first.size * c.arrays[1].shape[-1],
    **dict.fromkeys(("sort", "argsort", "msort", "topk", "kthvalue", "median", "nanmedian", "mode"), _sort),
    **dict.fromkeys(("quantile", "nanquantile", "unique_dim", "unique_consecutive", "_unique2"), _sort),
    "searchsorted": lambda c: c.out.size * math.log2(max(c["sorted_sequence"].shape[-1], 2)),
    "bucketize": lambda c: c.out.size * math.log2(max(c["boundaries"].size, 2)),
    "upsample_linear1d": _taps(2, 2),
    "upsample_bilinear2d": _taps(2, 4),
    "_upsample_bilinear2d_aa": _taps(2, 16),
    "upsample_bicubic2d": _taps(2, 16),
    "_upsample_bicubic2d_aa": _taps(2, 64),
    "upsample_trilinear3d": _taps(2, 8),
    "grid_sampler": _taps(3, 4),
    "grid_sampler_2d": _taps(3, 4),
    "grid_sampler_3d": _taps(3, 8),
    "scatter_add": _sources("src"),
    "scatter_reduce": _sources("src"),
    "scatter": _sources("src"),
    "index_add": _sources("source"),
    "index_copy": _sources("source"),
    "index_reduce": _sources("source"),
    "index_put": _sources("values"),
    "_unsafe_index_put": _sources("values"),
    "masked_scatter": _sources("source"),
    "segment_reduce": _sources("data"),
    "embedding_bag": _embedding_bag,
    "_embedding_bag": _embedding_bag,
    "cdist": _pairs(3),
    "_cdist_forward": _pairs(3),
    "_euclidean_dist": _pairs(3),
    "pdist": _pairs(3),
    "_pdist_forward": _pairs(3),
    "ctc_loss": lambda c: 6 * c["log_probs"].shape[0] * c["targets"].size * 2,
    "_trilinear": lambda c: 3 * c.out.size,
}
