"""Operations whose cost needs no formula, as lists of names: so many FLOPs for each number, or none at all."""

from __future__ import annotations


def _flops(table: str) -> dict[str, float]:
    """ "2: clamp pow" is two FLOPs each for clamp and pow; a line without a number goes on with the one above."""
    found: dict[str, float] = {}
    flops = 0.0
    for word in table.split():
        if word.endswith(":"):
            flops = float(word[:-1])
        else:
            found[word] = flops
    return found


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


PER_OUTPUT = _flops("""
    1:
        abs absolute neg negative positive sign sgn signbit ceil floor round trunc fix frac relu add sub subtract rsub
        mul multiply div divide true_divide maximum minimum fmax fmin eq ne lt le gt ge equal not_equal less
        less_equal greater greater_equal logical_and logical_or logical_xor logical_not bitwise_and bitwise_or
        bitwise_xor bitwise_not bitwise_left_shift bitwise_right_shift isnan isinf isfinite isposinf isneginf isreal
        where masked_fill clamp_min clamp_max sqrt exp exp2 log log2 log10 reciprocal square sin cos tan asin acos
        atan erf erfc erfinv threshold conj_physical nan_to_num heaviside copysign nextafter deg2rad rad2deg fill zero
        tril triu cumsum cumprod cummax cummin logcumsumexp diff angle isin arcsin arccos arctan lift polar complex
        ldexp frexp count
    2:
        clamp clip relu6 hardtanh leaky_relu rsqrt expm1 log1p pow float_power remainder fmod floor_divide addcmul
        addcdiv lerp prelu rrelu hypot atan2 arctan2 trapezoid hardshrink softshrink native_dropout isclose xlogy
        bernoulli dist logit sinc sinh cosh asinh acosh atanh arcsinh arccosh arctanh gcd lcm dequantize
        quantize_per_channel gammaln igamma igammac bessel_j0 bessel_j1 batch_norm
        _native_batch_norm_legit_no_training
    3:
        sigmoid expit hardsigmoid elu celu log_sigmoid logaddexp logaddexp2 erfcx
    4:
        silu hardswish selu glu softplus cast tanh log_sigmoid_forward cross linalg_cross
    5:
        softmax _softmax log_softmax _log_softmax _safe_softmax renorm fake_quantize_per_tensor_affine
        fake_quantize_per_channel_affine quantize_per_tensor rms_norm _fused_rms_norm
    6:
        gelu mish lgamma digamma polygamma mvlgamma i0 i0e i1 i1e ndtr ndtri log_ndtr entr zeta
    8:
        _native_batch_norm_legit native_batch_norm layer_norm native_layer_norm group_norm native_group_norm
        instance_norm
""")
"""FLOPs for each number of the result."""

PER_INPUT = _flops("""
    1:
        sum nansum mean nanmean prod amax amin max min aminmax all any argmax argmin count_nonzero trace nonzero
        nonzero_static argwhere histc bincount adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d
        _adaptive_avg_pool2d _adaptive_avg_pool3d adaptive_max_pool1d adaptive_max_pool2d adaptive_max_pool3d
        fractional_max_pool2d col2im masked_select sum_to_size allclose trapz _is_all_true multinomial
    2:
        norm linalg_vector_norm linalg_norm linalg_matrix_norm frobenius_norm mse_loss l1_loss
    3:
        nll_loss_nd nll_loss2d hinge_embedding_loss margin_ranking_loss soft_margin_loss
    4:
        logsumexp var std var_mean std_mean huber_loss smooth_l1_loss nll_loss kl_div
    6:
        cosine_similarity cosine_embedding_loss cross_entropy_loss binary_cross_entropy cov corrcoef
        binary_cross_entropy_with_logits pairwise_distance triplet_margin_loss
""")
"""FLOPs for each number of the first argument."""

FREE = _names("""
    alias alpha_dropout _assert_scalar _assert_tensor_metadata cond conj detach dim dropout empty empty_like
    empty_permuted empty_strided feature_dropout floordiv getitem _has_same_storage_numel is_complex is_conj
    is_floating_point is_inference is_leaf is_neg is_nonzero is_pinned is_same_size is_signed item lift_fresh
    _local_scalar_dense new_empty new_empty_strided numel output_nr resolve_conj resolve_neg scalar_tensor set_data
    size stride sym_constrain_range sym_constrain_range_for_size sym_is_contiguous sym_numel sym_size
    sym_storage_offset sym_stride _version
""")
"""Nothing is computed and nothing is moved."""

VIEWS = _names("""
    adjoint as_strided atleast_1d atleast_2d atleast_3d broadcast_tensors broadcast_to chunk diagonal dsplit expand
    expand_as hsplit imag linalg_diagonal mH mT matrix_H meshgrid moveaxis movedim narrow numpy_T permute real
    _reshape_alias select slice slice_inverse split split_with_sizes squeeze swapaxes swapdims t tensor_split
    transpose unbind unflatten unfold unsafe_chunk unsafe_split unsafe_split_with_sizes _unsafe_view unsqueeze view
    view_as view_as_complex view_as_real vsplit
""")
"""Another look at the same data: nothing moves."""

RELAYOUTS = _names("""
    contiguous expand_copy flatten narrow_copy ravel reshape reshape_as to _to_copy type_as
""")
"""A view where that is possible; moves data where the layout or the type changes."""

GATHERS = _names("""
    embedding gather index index_select take take_along_dim _unsafe_index _unsafe_masked_index
""")
"""Reads as much as it writes."""

CREATE = _names("""
    affine_grid_generator arange as_strided_scatter bartlett_window blackman_window block_diag cartesian_prod cat
    cauchy channel_shuffle clone column_stack combinations concat concatenate constant_pad_nd copy diag diag_embed
    diagflat diagonal_scatter dstack exponential eye fft_fftfreq fft_fftshift fft_ifftshift fft_rfftfreq flip fliplr
    flipud full full_like geometric hamming_window hann_window hstack im2col index_fill kaiser_window linalg_vander
    linspace log_normal logspace max_unpool2d max_unpool3d native_channel_shuffle new_full new_ones new_zeros normal
    one_hot ones ones_like pad _pad_circular _pad_enum pad_sequence pixel_shuffle pixel_unshuffle poisson put rand
    rand_like randint randint_like randn randn_like random randperm reflection_pad1d reflection_pad2d reflection_pad3d
    repeat repeat_interleave replication_pad1d replication_pad2d replication_pad3d roll rot90 row_stack select_scatter
    slice_scatter stack tensor tile tril_indices triu_indices uniform upsample_nearest1d upsample_nearest2d
    upsample_nearest3d _upsample_nearest_exact1d _upsample_nearest_exact2d _upsample_nearest_exact3d vander vstack
    zeros zeros_like
""")
"""No arithmetic: numbers are filled in, copied, padded or drawn."""
