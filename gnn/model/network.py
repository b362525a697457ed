"""The network: temporal attention over the last payments of every entity that a payment touches.

Layer l reads, for each role, the layer-(l-1) keys and values of the entity's last K payments. What depends on the
reader (time difference, label state) enters as a bias on the attention logit and as attention-weighted sums, so a row's
keys and values depend only on its own past, never go stale, and are computed once: a key-value cache for payments.

Attention with relative bias after Vaswani et al. 2017 and TGAT (Xu et al., ICLR 2020); layers are trained one after the
other on the layer below, each adding to the log-odds (greedy layer-wise learning, Belilovsky et al., ICML 2019), so the
cost of training grows with the number of layers and not with the size of the neighbourhood, and nothing is stale.

Matrices are kept as [in, out] (`x @ W`), the layout that both engines read.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from data.schema import CATEGORIES
from gnn.model.trees import apply_trees, no_trees
from graph.dag.categories import CATEGORY_BUCKETS
from graph.dag.features import feature_names
from graph.dag.memory import head_inputs, head_names
from graph.dag.protocol import DAY_US, NEVER_US, Store, Window
from graph.dag.sampler import EDGE_FEATURES

BIAS_HIDDEN = 16
HEAD_HIDDEN = 32
CATEGORY_WIDTH = 4
EDGE = len(EDGE_FEATURES)
DROPOUT = 0.3
# Shares of features and categories blanked in training, as explanations blank them later. Without this the network
# memorises categories: with it, AP on S-FFSD's validation payments rose from .52 to .58.
FEATURE_DROPOUT, CATEGORY_DROPOUT = 0.1, 0.5
MAX_INT8_STEP = 127  # a key or value in an int8 cache is at most this many steps
MAX_FLOAT16 = 65_504.0  # and in a float16 cache this many
EDGE_SCALE = 1 / 8  # brings plain sums over neighbours to the size of the rest


@dataclass(frozen=True)
class ModelConfig:
    """The shape of the network.

    Attributes:
        roles: Roles of the graph, `account` first.
        width: Size of an embedding, and of a key and of a value.
        heads: Attention heads; divides `width`.
        layers: Attention layers.
        neighbours: Past payments read for each role.
        hidden: Hidden units after attention.
        window_rows: Rows back that a payment sees.
        window_days: Days back that a payment sees.
        settle_days: Age at which a payment without a label counts as legitimate, learnt from the delays of the labels
            that trained the model; None where labels also say "legitimate" and nothing else does.
        cache: How keys and values are kept, `float32`, `float16` or `int8`. Rounded in the uncached network too: it is
            part of the model.
    """

    roles: tuple[str, ...]
    width: int = 32
    heads: int = 4
    layers: int = 2
    neighbours: int = 16
    hidden: int = 64
    window_rows: int = Window.rows
    window_days: int = 90
    settle_days: float | None = None
    cache: str = "float32"

    @property
    def window(self) -> Window:
        """How far back a payment sees: part of the model, or a replay would score otherwise."""
        return Window(self.window_rows, self.window_days * DAY_US)

    @property
    def settle_us(self) -> int:
        """Age, in microseconds, at which a payment without a label counts as legitimate; see `settle_days`."""
        return NEVER_US if self.settle_days is None else round(self.settle_days * DAY_US)

    @cached_property
    def inputs(self) -> int:
        """Features of a payment, without categories."""
        return len(feature_names(self.roles))

    @cached_property
    def beside(self) -> int:
        """What the head's trees read beside the features and the network's log-odds."""
        return len(head_names(self.roles))

    @property
    def read(self) -> int:
        """Width of what attention hands on for one role."""
        return self.width + (self.heads + 1) * EDGE + 1


class Weights(NamedTuple):
    """The parameters as float32 arrays. F features, D width, L layers, R roles, H heads, E edge features."""

    mean: NDArray[np.float32]  # [F]
    scale: NDArray[np.float32]  # [F] 1 / standard deviation
    category: NDArray[np.float32]  # [4, buckets, 4]
    enc_w1: NDArray[np.float32]  # [F + 16, hidden]
    enc_b1: NDArray[np.float32]
    enc_w2: NDArray[np.float32]  # [hidden, D]
    enc_b2: NDArray[np.float32]
    kv_w: NDArray[np.float32]  # [L, D, 2D] keys, then values
    kv_b: NDArray[np.float32]
    kv_scale: NDArray[np.float32]  # [L, 2D] a step of int8 and float16; ones for float32
    q_w: NDArray[np.float32]  # [L, R, D, D]
    q_b: NDArray[np.float32]
    bias_w1: NDArray[np.float32]  # [L, R, E, 16]
    bias_b1: NDArray[np.float32]
    bias_w2: NDArray[np.float32]  # [L, R, 16, H]
    bias_b2: NDArray[np.float32]
    mix_w: NDArray[np.float32]  # [L, D + R * read, hidden]
    mix_b: NDArray[np.float32]
    out_w: NDArray[np.float32]  # [L, hidden, D]
    out_b: NDArray[np.float32]
    head_w1: NDArray[np.float32]  # [L, hidden, 32]
    head_b1: NDArray[np.float32]
    head_w2: NDArray[np.float32]  # [L, 32]
    head_b2: NDArray[np.float32]  # [L]


class AttentionLayer(nn.Module):
    """One layer: what it leaves for later payments to read, how it reads, and its part of the log-odds."""

    kv_scale: Tensor

    def __init__(self, config: ModelConfig, generator: torch.Generator) -> None:
        super().__init__()
        c, roles = config, len(config.roles)
        self.config = config
        self.kv_w = _normal(generator, c.width, 2 * c.width)
        self.kv_b = _zeros(2 * c.width)
        self.register_buffer("kv_scale", torch.ones(2 * c.width))
        self.q_w = _normal(generator, roles, c.width, c.width)
        self.q_b = _zeros(roles, c.width)
        self.bias_w1 = _normal(generator, roles, EDGE, BIAS_HIDDEN)
        self.bias_b1 = _zeros(roles, BIAS_HIDDEN)
        self.bias_w2 = _normal(generator, roles, BIAS_HIDDEN, c.heads)
        self.bias_b2 = _zeros(roles, c.heads)
        self.mix_w = _normal(generator, c.width + roles * c.read, c.hidden)
        self.mix_b = _zeros(c.hidden)
        self.out_w = _normal(generator, c.hidden, c.width)
        self.out_b = _zeros(c.width)
        self.head_w1 = _normal(generator, c.hidden, HEAD_HIDDEN)
        self.head_b1 = _zeros(HEAD_HIDDEN)
        self.head_w2 = nn.Parameter(_normal(generator, HEAD_HIDDEN, 1)[:, 0].detach().clone())
        self.head_b2 = _zeros()

    def keys_values(self, h: Tensor) -> Tensor:
        """What later payments read of a row: keys, then values, float32 [..., 2D]."""
        return h @ self.kv_w + self.kv_b

    def rounded(self, kv: Tensor) -> Tensor:
        """Keys and values as the cache gives them back, float32 [..., 2D]."""
        if self.config.cache == "float32":
            return kv
        steps = kv / self.kv_scale
        if self.config.cache == "float16":
            return steps.clamp(-MAX_FLOAT16, MAX_FLOAT16).half().float() * self.kv_scale
        return torch.clamp(torch.round(steps), -MAX_INT8_STEP, MAX_INT8_STEP) * self.kv_scale

    def attend(self, h: Tensor, kv: Tensor, valid: Tensor, edge: Tensor) -> tuple[Tensor, Tensor]:
        """Read the neighbours.

        Args:
            h: The payments' embeddings from the layer below, [B, D].
            kv: Their neighbours' keys and values, [B, R, K, 2D].
            valid: Whether there is a neighbour, bool [B, R, K].
            edge: What ties each neighbour to its reader, [B, R, K, E]; zeros where there is none.

        Returns:
            Embeddings [B, D], and this layer's part of the log-odds [B].
        """
        c = self.config
        batch, roles, k = valid.shape
        size = c.width // c.heads
        q = torch.einsum("bd,rde->bre", h, self.q_w) + self.q_b
        key, value = kv[..., : c.width].unflatten(-1, (c.heads, size)), kv[..., c.width :]
        score = (q.view(batch, roles, 1, c.heads, size) * key).sum(-1) / size**0.5
        bias = torch.relu(torch.einsum("brke,ref->brkf", edge, self.bias_w1) + self.bias_b1[:, None])
        score = score + torch.einsum("brkf,rfh->brkh", bias, self.bias_w2) + self.bias_b2[:, None]
        some = valid[..., None]
        weight = torch.softmax(score.masked_fill(~some, -1e9), 2) * some
        weight = weight.transpose(-1, -2)
        # Every head reads all of the values and keeps its own part: one product is four times as fast as one a head.
        values = (weight @ value).unflatten(-1, (c.heads, size)).diagonal(dim1=2, dim2=3).transpose(-1, -2)
        read = [
            values.flatten(2),
            (weight @ edge).flatten(2),
            edge.sum(2) * EDGE_SCALE,
            valid.sum(2, keepdim=True).to(h.dtype) / k,
        ]
        mixed = torch.relu(torch.cat([h, torch.cat(read, -1).flatten(1)], -1) @ self.mix_w + self.mix_b)
        mixed = torch.dropout(mixed, DROPOUT, self.training)
        logit = torch.relu(mixed @ self.head_w1 + self.head_b1) @ self.head_w2 + self.head_b2
        return h + mixed @ self.out_w + self.out_b, logit


class RingwatchNet(nn.Module):
    """The network in PyTorch: used to train, to score on CUDA, and as the oracle of the fused CPU kernel."""

    mean: Tensor
    scale: Tensor

    def __init__(self, config: ModelConfig, seed: int = 0) -> None:
        super().__init__()
        self.config = config
        generator = torch.Generator().manual_seed(seed)
        self.register_buffer("mean", torch.zeros(config.inputs))
        self.register_buffer("scale", torch.ones(config.inputs))
        self.category = nn.Parameter(
            0.1 * torch.randn(len(CATEGORIES), CATEGORY_BUCKETS, CATEGORY_WIDTH, generator=generator)
        )
        self.enc_w1 = _normal(generator, config.inputs + len(CATEGORIES) * CATEGORY_WIDTH, config.hidden)
        self.enc_b1 = _zeros(config.hidden)
        self.enc_w2 = _normal(generator, config.hidden, config.width)
        self.enc_b2 = _zeros(config.width)
        self.layers = nn.ModuleList(AttentionLayer(config, generator) for _ in range(config.layers))
        self.trees = no_trees()  # the head: not learnt by gradient, so no part of `state_dict`

    def layer(self, number: int) -> AttentionLayer:
        """A layer, from 0."""
        layer = self.layers[number]
        assert isinstance(layer, AttentionLayer)
        return layer

    def learnt_in(self, number: int) -> list[nn.Parameter]:
        """The parameters that are trained together with a layer; the encoder goes with the first."""
        encoder = [p for name, p in self.named_parameters(recurse=False)]
        return [*(encoder if number == 0 else []), *self.layers[number].parameters()]

    def encode(self, x: Tensor, category: Tensor) -> Tensor:
        """Embed payments by themselves.

        Args:
            x: Features, float32 [..., F].
            category: Hashed categories, int64 [..., 4].

        Returns:
            float32 [..., D].
        """
        normal, embedded = self.normalise(x, category)
        if self.training:
            normal = torch.where(_kept(normal.shape, FEATURE_DROPOUT, normal.device), normal, 0.0)
            known = _kept(category.shape, CATEGORY_DROPOUT, category.device)
            embedded = (embedded.unflatten(-1, (len(CATEGORIES), -1)) * known[..., None]).flatten(-2)
        return self.encode_normalised(normal, embedded)

    def normalise(self, x: Tensor, category: Tensor) -> tuple[Tensor, Tensor]:
        """Features in standard deviations, and categories embedded ([..., 16])."""
        normal = ((x - self.mean) * self.scale).clamp(-8, 8)
        # `embedding` and not indexing: its gradient is summed in a fixed order, so a seed gives one model.
        parts = [nn.functional.embedding(category[..., c], self.category[c]) for c in range(len(CATEGORIES))]
        return normal, torch.cat(parts, -1)

    def encode_normalised(self, normal: Tensor, category: Tensor) -> Tensor:
        """Embed from `normalise`'s output, so that an explanation can blank parts of it."""
        hidden = torch.relu(torch.cat([normal, category], -1) @ self.enc_w1 + self.enc_b1)
        return hidden @ self.enc_w2 + self.enc_b2

    def weights(self) -> Weights:
        """The parameters as contiguous float32 arrays for the CPU kernels, layers stacked on the first axis."""

        def array(name: str) -> NDArray[np.float32]:
            own = getattr(self, name, None)
            tensor = own if own is not None else torch.stack([getattr(layer, name) for layer in self.layers])
            return np.ascontiguousarray(tensor.detach().cpu().float().numpy())

        return Weights._make(array(name) for name in Weights._fields)


def _normal(generator: torch.Generator, *shape: int) -> nn.Parameter:
    return nn.Parameter(torch.randn(*shape, generator=generator) / shape[-2] ** 0.5)


def _kept(shape: torch.Size, blank: float, device: torch.device) -> Tensor:
    """Which evidence stays, bool; a byte of a random word decides on each: a draw for each takes four times as long."""
    words = torch.empty(shape.numel() // 8 + 1, dtype=torch.int64, device=device).random_(-(2**63), None)
    return (words.view(torch.uint8)[: shape.numel()] >= round(256 * blank)).view(shape)


def _zeros(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.zeros(shape))


@torch.no_grad()
def uncached(net: RingwatchNet, store: Store, rows: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
    """Embeddings and log-odds of any rows by recursion over their neighbourhood, without a cache: the slow reference.

    Args:
        net: On the CPU.
        store: The graph.
        rows: int64 [B].

    Returns:
        float32 [B, D] and [B].
    """
    h, logit = _recurse(net, store, rows, net.config.layers)
    x = store.features(rows, net.config.settle_us)
    return h, torch.from_numpy(apply_trees(net.trees, x, logit.numpy(), beside(store, rows)))


def _recurse(net: RingwatchNet, store: Store, rows: NDArray[np.int64], depth: int) -> tuple[Tensor, Tensor]:
    if depth == 0:
        return net.encode(*raw_inputs(store, rows, net.config.settle_us)), torch.zeros(len(rows))
    h, logit = _recurse(net, store, rows, depth - 1)
    near = store.neighbours(rows, net.config.neighbours)
    tie = torch.from_numpy(store.edges(rows, near, net.config.settle_us))
    unique, inverse = np.unique(np.maximum(near, 0), return_inverse=True)
    below, _ = _recurse(net, store, unique, depth - 1)
    layer = net.layer(depth - 1)
    kv = layer.rounded(layer.keys_values(below))[torch.from_numpy(inverse.reshape(near.shape))]
    h, part = layer.attend(h, kv, torch.from_numpy(near >= 0), tie)
    return h, logit + part


def raw_inputs(store: Store, rows: NDArray[np.int64], settle_us: int) -> tuple[Tensor, Tensor]:
    """A payment's features, float32 [B, F], and hashed categories, int64 [B, 4]."""
    return (
        torch.from_numpy(store.features(rows, settle_us)),
        torch.from_numpy(store.column("category", rows).astype(np.int64)),
    )


def beside(store: Store, rows: NDArray[np.int64]) -> NDArray[np.float32]:
    """What the head's trees read beside a payment's features, float32 [B, E]; see `graph.dag.memory.head_names`."""
    return head_inputs(store.roles, store.column("category", rows), store.column("ring", rows))
