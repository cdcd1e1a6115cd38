"""What is trained, and how it runs: the sequence model, the loop on the cluster, the ranker on top."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from ray_app.data_config import Positive
from ray_app.schedule import Section


class ModelConfig(Section):
    """A causal transformer over item vectors."""

    start_from: str | None = None
    """Folder or URI of a checkpoint to fine-tune. Unset: the result of `pretrain`, or else random weights."""
    dim: Positive = 64
    """Width of item vectors and blocks."""
    num_layers: Positive = 1
    """Blocks."""
    num_heads: Positive = 1
    """Of attention, in each block."""
    feedforward_dim: Positive = 256
    """Width of the gated layer in each block."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.2
    """Higher for sparse logs: 0.5 in the Amazon configurations."""
    max_history_len: Positive = 50
    """Events of a history that are read, the latest."""
    bias_init: Literal["popularity", "zero"] = "popularity"
    """Where item biases begin. popularity learns faster; zero ended a little better on Amazon Beauty (benchmarks)."""
    repeats: bool = False
    """Add what the history itself says to every score: for groceries and other logs where orders repeat."""
    mark_clicks: bool = False
    """Tell the network which events of a history are clicks: those whose type weighs 0 in data.event_types. They are
    read in any case; without the mark a click looks like a purchase."""
    id_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.2
    """How often an item is trained by its content alone, as an item without training is served (content)."""
    delta_norm: Annotated[float, Field(ge=0)] | None = None
    """Bound on what an item's id adds to its content, whose vectors have a norm of about 0.5; 0: items have no vectors
    of their ids; unset: none (content)."""
    lent_length: Annotated[float, Field(ge=0)] = 1.0
    """How long, by what is usual, the vectors are that like items lend to an item without training: at 1.25 new items
    are recommended more often, and others less (content)."""
    likeness_dim: Annotated[int, Field(ge=0)] = 0
    """Directions of content in which likeness to the last items is scored outright, 128 for example: for logs so sparse
    that little else can be learned; 0: not at all (content)."""
    temperature: Annotated[float, Field(ge=0.01)] | None = None
    """Score by the cosine of query and item, divided by this, instead of their product: .05 learns faster on Amazon
    Beauty, for schedules too short for the other (benchmarks/LOG.md)."""
    loss: Literal["softmax", "sampled_softmax"] = "sampled_softmax"
    """Over the whole catalogue, or over a sample of it: for catalogues of more than some ten thousand items."""
    num_negatives: Positive = 512
    """Drawn once per batch and shared by its positions (sampled_softmax)."""
    logq_correction: bool = True
    """Subtract from each negative the log of how often it is expected in the sample (sampled_softmax)."""
    negatives: Literal["uniform", "popularity", "mixed"] = "uniform"
    """How they are drawn: each item as often, as often as it was had, or half of them so and half so."""
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of a target's mass that is spread over the catalogue (softmax)."""
    order_balance: Annotated[float, Field(ge=0, le=1)] = 0.0
    """What an order of n items weighs in the loss: n at 0, as much as any other at 1 (as recall counts), or between."""
    targets: Literal["all", "new"] = "all"
    """new: an item that the user had before is not learned as a target, for recommenders that exclude seen items."""

    reorder: Annotated[float, Field(ge=0)] = 0.0
    """Train on histories whose orders are moved by less than so many places, anew in each epoch; 2 lets neighbours
    change places one time in eight. For sparse logs, and those that know the day of an event alone."""

    @model_validator(mode="after")
    def _heads_divide_dim(self) -> Self:
        if self.dim % self.num_heads:
            raise ValueError(f"dim ({self.dim}) must be a multiple of num_heads ({self.num_heads})")
        return self

    @model_validator(mode="after")
    def _smoothing_needs_the_catalogue(self) -> Self:
        if self.label_smoothing and self.loss != "softmax":
            raise ValueError("label_smoothing needs loss: softmax; a sample of negatives has no whole to spread over")
        return self


class TrainConfig(Section):
    """How the loop runs on the cluster."""

    num_workers: Positive = 1
    """Processes that train together (Ray Train), each with all of the model and a part of the users."""
    use_gpu: bool = False
    """Each worker and each actor that runs a network asks for one GPU."""
    cpus_per_worker: Positive = 1
    """What each worker asks of the cluster, and its threads."""
    tokens_per_batch: Positive = 1024
    """Positions per worker and step; users of similar length share a batch."""
    window_users: Positive = 2_000_000
    """Users held in memory by one worker; a larger share of the data is streamed window by window."""
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    """Of weights, batches and negatives; with the same workers it gives the same numbers."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """auto: bf16 autocast on a GPU that has it, fp32 elsewhere."""
    max_failures: Annotated[int, Field(ge=-1)] = 3
    """Lost workers or nodes after which the run is given up; -1 never."""
    checkpoint_every_steps: Positive | None = None
    """Also save inside an epoch, this often; unset: at the end of each epoch alone."""


class RankerConfig(Section):
    """Trees over all kinds of evidence (sequence model, transitions, texts, habits), fitted on the validation part."""

    max_trees: Positive = 400
    """Fewer are kept where more serve held-out users no better."""
    learning_rate: Annotated[float, Field(gt=0, le=1)] = 0.05
    """What each tree counts."""
    num_leaves: Annotated[int, Field(ge=2)] = 15
    """Of each tree, at most."""
    min_leaf: Positive = 200
    """Candidates in each leaf."""
    max_users: Positive = 50_000
    """Users of the validation part to learn from; of more a sample is drawn."""
