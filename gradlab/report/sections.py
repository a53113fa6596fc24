"""A section of a report: an answer, what was asked, pictures and a table, before they are HTML."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import pandas as pd

from gradlab.comparison.rows import COLUMNS
from gradlab.report.charts import Chart

__all__ = [
    "DERIVED",
    "Section",
    "SmallTable",
    "counted",
    "known",
    "listed",
    "meaning_of",
    "title_of",
]

DERIVED = {
    "equal_progress": (
        "progress at equal cost",
        "progress of the mean of the averaged gradients, each of the same evaluations of f",
    ),
    "rel_bias2": ("bias² / |g|²", "squared bias relative to the squared length of the gradient"),
    "rel_bias2_se": ("bias² / |g|² s.e.", "standard error of bias² / |g|²"),
    "rel_variance": ("variance / |g|²", "variance of one draw relative to |g|²"),
    "rel_variance_se": ("variance / |g|² s.e.", "standard error of variance / |g|²"),
    "rel_mse": ("MSE / |g|²", "mean squared error of one draw relative to |g|²"),
    "rel_mse_se": ("MSE / |g|² s.e.", "standard error of MSE / |g|²"),
    "size": ("size", "variables x classes"),
    "merged": ("rows", "how many rows of the source this row is the median of"),
    "evidence": ("evidence", "what the verdict rests on"),
    "line": ("line", "line of the picture"),
    "allowed": ("allowed", "bias that counts as none"),
    "from": ("from", "start of the thin line of the picture"),
    "end": ("end", "P(b = 1) at the last step"),
    "place": ("problem and size", "problem, with variables x classes"),
    "lead": (
        "lead",
        "share of the rival that is dominated, less the share that the rival dominates",
    ),
    "lead_q25": ("lead, quartile", "first quartile of the lead over seeds"),
    "lead_q75": ("lead, 3rd quartile", "third quartile of the lead over seeds"),
    "ratio_q25": ("ratio, quartile", "first quartile of the ratio"),
    "ratio_q75": ("ratio, 3rd quartile", "third quartile of the ratio"),
    "size of the difference": ("size of the difference", "the difference without its sign"),
    "size of the law": ("size of the law", "the law without its sign"),
    "foreseen": ("foreseen", "P(b = 1) at the last step, as theory predicts it"),
    "classes": ("classes", "classes, where only these vary"),
    "variables": ("variables", "variables, where only these vary"),
    "to": ("to", "end of the thin line of the picture: the bound of the bias"),
}
"""Columns that the report adds: their titles and meanings."""

# Of tables that the schema of rows does not describe.
_OTHERS = {
    "outcome": "UNBIASED, BIASED, INCONCLUSIVE or NOT APPLICABLE; of losses: equal steps or cost",
    "claimed": "whether it declares to be exact here; of factors: the closed form",
    "holds": "whether what it declares, or what was asked, holds",
    "judged": "what was judged: its draw, its training, or both",
    "bias": "length of the bias, in the column unit",
    "bias_se": "standard error of bias",
    "limit": "bound of the length of the bias, in the column unit",
    "slope": "how long the mean is along the gradient, relative to it",
    "slope_se": "standard error of slope",
    "deviation": "standard deviation of one draw, in the column unit",
    "needed": "draws that would decide",
    "p_value": "probability of such a deviation if there were no bias",
    "log_e_value": "logarithm of the evidence against no bias",
    "kurtosis": "largest kurtosis of a coordinate of the draws",
    "degrees": "degrees of freedom of the test",
    "set_aside": "coordinates that were set aside",
    "unseen_rate": "events rarer than this may not have been seen",
    "delta": "largest bias that counts as none, in lengths of the gradient",
    "alpha": "rate at which unbiased code may be called biased",
    "kind": "kind of loss, or of training",
    "degree": "degree of the loss in each variable",
    "epoch": "passes over the training images",
    "seconds": "seconds of training",
    "loss": "training loss",
    "train_nelbo": "-ELBO of training images, in nats",
    "valid_nelbo": "-ELBO of validation images, in nats",
    "test_nelbo": "-ELBO of test images, in nats",
    "test_bound": "importance-weighted bound of -log p of test images, in nats",
    "machine": "processor",
    "asked": "whether this is the budget and the number that were asked for",
    "trained": "estimator that trains the model",
    "data": "data set",
    "latent": "size of the latent layer",
    "lr": "learning rate",
    "epochs": "epochs asked for",
    "hidden": "units of each hidden layer",
    "bound_samples": "samples in the importance-weighted bound",
    "objective": "what is raised: elbo, or iwae, the bound of k samples",
    "k": "samples in the objective iwae",
    "chosen": "whether this learning rate is the best of its estimator",
    "declared": "whether the estimator is declared exact for this f",
    "planted": "error that was planted",
    "how": "how it was found",
    "wanted": "what the mean is compared with: the gradient of the target, times a factor",
    "off_policy": "whether the sequences are sampled by another policy",
    "relation": "means that must be the same",
    "timed": "what was timed: a layer, or the surrogate of a linear f",
    "mode": "how it ran: eager, or as a CUDA graph",
    "ms": "median milliseconds of a forward and backward pass",
    "ms_q25": "first quartile of ms",
    "ms_q75": "third quartile of ms",
    "passes": "passes that were timed",
    "ratio": "median ratio: of times to F.gumbel_softmax(hard=True), of errors to the smallest one",
    "peak_bytes": "largest memory in use during a pass",
    "peak_ratio": "peak_bytes relative to F.gumbel_softmax(hard=True)",
    "device": "cpu or cuda",
    "torch": "version of torch",
    "threads": "threads of torch",
    "quantity": "what differs: the mean, or the variance",
    "difference": "difference to ZGR, relative to the gradient (squared for the variance)",
    "law": "leading term of the difference, by theory",
    "power": "power of the temperature in the law",
    "scale": "raw, or scale-free: rescaled to the length of the gradient; of laws: that of ZGR",
    "dominated_by": "the family that dominates",
    "share": "share of the family series that dominated_by dominates",
    "points": "temperatures at which the curve is known",
    "wins": "seeds in which no other has a smaller error",
    "seeds": "seeds that the row sums up",
    "criterion": "what estimators are compared by",
    "error": "median error of the best temperature, relative to the gradient",
    "count": "rows that were left out",
    "task": "what was trained",
    "name": "what is compared: a criterion, or an estimator",
    "moment": "moment of the reference run, or what is made of all of them",
    "per": "whether a gradient is one draw or one evaluation of f",
    "gradient": "whether the gradient is of the estimated part or the whole",
    "rho": "Spearman's rank correlation; positive where the better criterion has the lower loss",
    "low": "lower end of the interval of rho",
    "high": "upper end of the interval of rho",
    "estimators": "estimators that are ranked",
    "p": "probability that a sequence succeeds",
    "policy_seed": "seed of the logits of the policy",
    "factor": "simple fraction that explains the slope; of prompts: what multiplies the gradient",
    "toy": "toy problem",
    "q": "P(b = 1), mean over bits and runs",
    "q_low": "16 % point of q",
    "q_high": "84 % point of q",
    "predicted": "q that theory predicts",
    "predicted_loss": "loss at predicted",
    "limit_q": "q where the mean of the estimator leads in the end",
    "limit_loss": "loss where the mean of the estimator leads in the end",
    "least": "smallest loss",
    "fitted": "whether the estimator was fitted before",
    "runs": "runs, or bits that are as many runs",
    "snr": "signal to noise of the gradient of one bit at the first step",
    "fixed_points": "where the mean changes its sign; ! where descent leaves",
    "train_batch": "images in a batch of the training",
}


def known(column: str) -> bool:
    """Return whether gradlab knows what a column means.

    Args:
        column: Its name.

    Returns:
        Whether it does.

    Example:
        >>> known("bias2"), known("mine")
        (True, False)
    """
    return meaning_of(column) != ""


def title_of(column: str) -> str:
    """Return what a column is called on the page.

    Args:
        column: Its name.

    Returns:
        The title; of a column that the report did not add, its name.

    Example:
        >>> title_of("rel_mse"), title_of("mine")
        ('MSE / |g|²', 'mine')
    """
    return DERIVED[column][0] if column in DERIVED else column


def meaning_of(column: str) -> str:
    """Return what a column means.

    Args:
        column: Its name.

    Returns:
        Its meaning and its unit, "" where that is not known.

    Example:
        >>> meaning_of("loss_se")
        'standard error of loss'
    """
    if column in DERIVED:
        return DERIVED[column][1]
    if column in COLUMNS:
        unit = COLUMNS[column].unit
        return COLUMNS[column].meaning + (f" (in {unit})" if unit else "")
    stem = column.removesuffix("_se")
    if stem != column and stem in _OTHERS:
        return f"standard error of {stem}"
    return _OTHERS.get(column, "")


@dataclass(frozen=True)
class SmallTable:
    """A table that is read as a whole, such as the best estimator of each budget.

    Args:
        caption: What it shows.
        header: Titles of its columns.
        rows: Its cells.

    Example:
        >>> SmallTable("Budgets", ["budget"], [["12"]]).caption
        'Budgets'
    """

    caption: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Section:
    """What a report says of one source.

    Args:
        title: Its heading.
        lead: The answer, in one sentence.
        answer: Further sentences of the answer.
        asked: What was asked, one sentence each.
        rows: The rows that the table and the pictures show.
        shown: Columns that the table shows first.
        charts: Its pictures.
        selects: Columns whose values the reader chooses from, for the pictures.
        small: Tables of the answer.
        notes: What was left out or summed up.
        told: Text of the verb itself.
        evidence: Paragraphs, each a heading and a text.
        kept: Columns of the table that stay in it even if they are the same in every row.

    Example:
        >>> Section("Rows", "There are none.", [], [], pd.DataFrame(), []).charts
        []
    """

    title: str
    lead: str
    answer: list[str]
    asked: list[str]
    rows: pd.DataFrame
    shown: list[str]
    charts: list[Chart] = field(default_factory=list)
    selects: list[str] = field(default_factory=list)
    small: list[SmallTable] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    told: str = ""
    evidence: list[tuple[str, str]] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)


def counted(number: int, thing: str) -> str:
    """Return a number and its noun, in the singular or the plural.

    Args:
        number: How many.
        thing: The noun in the singular.

    Returns:
        The words.

    Example:
        >>> counted(1, "row"), counted(2688, "row")
        ('1 row', '2,688 rows')
    """
    return f"{number:,} {thing}" + ("" if number == 1 else "s")


def listed(names: Sequence[object], most: int = 12) -> str:
    """Return names as a list in words, the first `most` of them.

    Args:
        names: The names.
        most: How many are written.

    Returns:
        The list, such as "a, b and c", or "a, b and 3 more".

    Example:
        >>> listed(["a", "b", "c"]), listed(["a", "b", "c"], most=1)
        ('a, b and c', 'a and 2 more')
    """
    texts = [str(name) for name in names]
    if len(texts) > most:
        texts = [*texts[:most], f"{len(texts) - most:,} more"]
    return texts[0] if len(texts) == 1 else f"{', '.join(texts[:-1])} and {texts[-1]}"
