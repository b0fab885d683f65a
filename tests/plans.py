"""Plans of one seed over the whole catalogue, by scale."""

from sgmse.experiments.catalogue import load_experiments, select_experiments
from sgmse.experiments.plan import Data, Plan, complete_data, make_plan
from sgmse.experiments.scales import Scale, load_scale

CATALOGUE = load_experiments()
SCALES = {name: load_scale(name) for name in ("paper", "mini")}


def plan(scale: str | Scale = "mini", ids: tuple[str, ...] = (), weights: str = "random", **data: object) -> Plan:
    """Of one seed."""
    known = SCALES[scale] if isinstance(scale, str) else scale
    return make_plan(select_experiments(CATALOGUE, ids), known, complete_data(known, Data(**data)), [0], weights)


EVERYTHING = {name: plan(name) for name in SCALES}
