"""Search spaces: what people write for a parameter of a sweep, and the next values to try.

Random and Bayesian search are Optuna's (Akiba et al., KDD 2019; the tree-structured Parzen
estimator of Bergstra et al., NeurIPS 2011). Proposals follow from the seed and the trials that
have ended, so whoever goes on with a sweep goes on with the same search.
"""

from __future__ import annotations

import itertools
import math
import re
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from nbmlops import notebook
from nbmlops.errors import InvalidParameter
from nbmlops.records import Dimension, Parameter, SweepRecord, Trial

if TYPE_CHECKING:
    import optuna

_RANGE = re.compile(r"(?P<low>[^.].*?)\.\.(?P<high>[^:]+)(:(?P<how>log|[^:]+))?")
_GRID_LIMIT = 10_000


def dimension(parameter: Parameter, text: str) -> Dimension | None:
    """Return the values that a text stands for, or ``None`` where it is one value.

    ``2,4,8`` and ``[2, 4, 8]`` are choices, ``50..400`` is a range with both ends, ``50..400:50``
    one with steps, ``1e-4..1e-1:log`` one that is drawn by orders of magnitude. The parameter's
    declared type says what a value is.

    Raises
    ------
    InvalidParameter
        When a value is not of the type, or a range has no meaning.

    Examples
    --------
    >>> dimension(Parameter(name="depth", type="int"), "2,4").choices
    (2, 4)
    >>> dimension(Parameter(name="rate", type="float"), "1e-4..0.1:log").low
    0.0001
    """
    if found := _RANGE.fullmatch(text):
        return _range(parameter, text, found["low"], found["high"], found["how"])
    texts = _choices(text)
    if len(texts) < 2:
        return None
    values = tuple(notebook.coerced(parameter, one) for one in texts)
    if len({msgspec.json.encode(value) for value in values}) < len(values):
        raise InvalidParameter(
            f"parameter `{parameter.name}` has a choice twice: {text[:80]}", "Name each once."
        )
    return Dimension(name=parameter.name, kind="choices", choices=values)


def _choices(text: str) -> list[Any]:
    if text.startswith("["):
        try:
            listed = msgspec.json.decode(text)
        except msgspec.DecodeError:
            listed = None
        if isinstance(listed, list):
            return listed
    return [one.strip() for one in text.split(",")]


def _range(parameter: Parameter, text: str, low: str, high: str, how: str | None) -> Dimension:
    ends = [notebook.coerced(parameter, end) for end in (low, high)]
    step = None if how in (None, "log") else notebook.coerced(parameter, how)
    for value in (*ends, *([] if step is None else [step])):
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise _no_range(parameter, text, f"`{parameter.name}` is no number")
    whole = all(isinstance(value, int) for value in ends) and not isinstance(step, float)
    first, last = float(ends[0]), float(ends[1])
    if first >= last:
        raise _no_range(parameter, text, "it does not rise")
    if how == "log" and first <= 0:
        raise _no_range(parameter, text, "orders of magnitude begin above 0")
    if step is not None and not 0 < step <= last - first:
        raise _no_range(parameter, text, "its step does not fit into it")
    return Dimension(
        name=parameter.name,
        kind="integers" if whole else "numbers",
        low=first,
        high=last,
        step=None if step is None else float(step),
        log=how == "log",
    )


def _no_range(parameter: Parameter, text: str, why: str) -> InvalidParameter:
    return InvalidParameter(
        f"`{text[:80]}` is no range for `{parameter.name}`: {why}",
        f"Write `-p {parameter.name}=LOW..HIGH`, with `:STEP` or `:log` behind it if you like.",
        parameter=parameter.name,
    )


def grid(space: Sequence[Dimension]) -> list[dict[str, Any]]:
    """Return all combinations, the last parameter changing fastest.

    Raises
    ------
    InvalidParameter
        When a range has no steps, or there are more than 10,000 combinations.
    """
    axes = [_values(one) for one in space]
    size = math.prod(len(axis) for axis in axes)
    if size > _GRID_LIMIT:
        raise InvalidParameter(
            f"the grid has {size:,} combinations",
            "Name fewer values, or search it: `--search bayes --trials 50`.",
        )
    names = [one.name for one in space]
    return [dict(zip(names, values, strict=True)) for values in itertools.product(*axes)]


def _values(one: Dimension) -> tuple[Any, ...]:
    if one.kind == "choices":
        return one.choices
    if (
        one.low is None
        or one.high is None
        or one.log
        or (one.step is None and one.kind != "integers")
    ):
        raise InvalidParameter(
            f"a grid needs the values of `{one.name}`, not a range",
            f"Name them (`-p {one.name}=1,2,4`), give steps (`-p {one.name}=1..4:1`), or choose"
            " `--search random` or `--search bayes`.",
        )
    step = one.step or 1.0
    count = math.floor((one.high - one.low) / step + 1e-9) + 1
    values = [one.low + step * index for index in range(count)]
    return tuple(int(value) for value in values) if one.kind == "integers" else tuple(values)


def propose(sweep: SweepRecord) -> dict[str, Any]:
    """Return the parameters of the sweep's next trial; pure in the record.

    The searches know which trials have ended, with which value, and which are under way.
    """
    number = len(sweep.trials) + 1
    if sweep.search == "grid":
        return grid(sweep.space)[number - 1]
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    # The seed of a trial is its own: a search that is taken up again draws what it would have.
    seed = (sweep.seed * 1_000_003 + number) % 2**32
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # experimental options of Optuna
        sampler = (
            optuna.samplers.RandomSampler(seed=seed)
            if sweep.search == "random"
            else optuna.samplers.TPESampler(
                seed=seed, constant_liar=True, multivariate=True, n_startup_trials=_startup(sweep)
            )
        )
        study = optuna.create_study(sampler=sampler, direction=sweep.direction)
        space = {one.name: _distribution(one) for one in sweep.space}
        if sweep.search == "bayes":
            study.add_trials([_told(trial, sweep.space, space) for trial in sweep.trials])
        asked = study.ask(space)
    return {one.name: _read(one, asked.params[one.name]) for one in sweep.space}


def _startup(sweep: SweepRecord) -> int:
    """Return how many trials are drawn at random first: a few, and not most of a short sweep."""
    return max(2, min(10, sweep.trials_total // 4))


def _distribution(one: Dimension) -> optuna.distributions.BaseDistribution:
    from optuna.distributions import (
        CategoricalDistribution,
        FloatDistribution,
        IntDistribution,
    )

    if one.kind == "choices" or one.low is None or one.high is None:
        # By position: a choice may be any JSON, Optuna's are plain values.
        return CategoricalDistribution(range(len(one.choices)))
    if one.kind == "integers":
        step = int(one.step or 1)
        high = int(one.low) + (int(one.high) - int(one.low)) // step * step
        return IntDistribution(int(one.low), high, log=one.log, step=step)
    return FloatDistribution(one.low, one.high, log=one.log, step=one.step)


def _read(one: Dimension, drawn: Any) -> Any:
    return one.choices[drawn] if one.kind == "choices" else drawn


def _told(
    trial: Trial, space: Sequence[Dimension], distributions: Mapping[str, Any]
) -> optuna.trial.FrozenTrial:
    import optuna

    states = optuna.trial.TrialState
    state = states.RUNNING
    if trial.status.is_final:
        state = states.COMPLETE if trial.value is not None else states.FAIL
    return optuna.trial.create_trial(
        state=state,
        params={one.name: _drawn(one, trial.parameters[one.name]) for one in space},
        distributions=dict(distributions),
        value=trial.value if state is states.COMPLETE else None,
    )


def _drawn(one: Dimension, value: Any) -> Any:
    return one.choices.index(value) if one.kind == "choices" else value
