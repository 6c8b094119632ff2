"""What happens to devices during a run: switched on late, cut off, rebooted, reconnected, their clock set wrong."""

from collections.abc import Callable
from typing import Any

import numpy as np

from triax_sim.links import OFF, WAIT, Links
from triax_sim.plan import LifeEvent, Plan
from triax_sim.population import Population

__all__ = ["Life"]

Array = np.ndarray[Any, Any]
Switched = Callable[[Array], None]


class Life:
    """The events of a plan in order of time, carried out on the devices they concern."""

    def __init__(self, plan: Plan, people: Population, links: Links) -> None:
        self._plan, self._people, self._links = plan, people, links
        late = np.array([c.power_on_s > 0 or c.power_spread_s > 0 for c in plan.cohorts])[people.cohort]
        self.on_from_start = ~late
        self._agenda: list[tuple[int, int, Callable[[Switched, int], None]]] = []
        # Set by the fleet: number of the next frame of each device; drop what is in their spools.
        self.number: Callable[[Array], Array] = lambda who: np.zeros(len(who), np.int64)
        self.forget: Callable[[Array], None] = lambda who: None

    def begin(self, start_us: int) -> None:
        """Fix the times; devices that are switched on late wait for theirs."""
        late = ~self.on_from_start
        self._links.state[late] = WAIT
        self._links.retry_at[late] = self._people.on_us[late]
        for event in self._plan.events:
            self._enter(start_us + int(event.at_s * 1e6), self._act(event))

    def _enter(self, at_us: int, act: Callable[[Switched, int], None]) -> None:
        self._agenda.append((at_us, len(self._agenda), act))
        self._agenda.sort(key=lambda entry: entry[:2])

    def happen(self, upto_us: int, switched: Switched) -> None:
        """Carry out what is to happen before `upto_us`."""
        while self._agenda and self._agenda[0][0] < upto_us:
            at, _, act = self._agenda.pop(0)
            act(switched, at)

    def concerned(self, event: LifeEvent) -> Array:
        """Devices of this process that an event happens to: the first `share` of the cohort's, by index."""
        mine = np.zeros(self._people.count, bool)
        for n, cohort in enumerate(self._plan.cohorts):
            if event.cohort in ("", cohort.name) and not (cohort.reserved and not event.cohort):
                within = self._people.index - cohort.first < round(event.share * cohort.count)
                mine |= (self._people.cohort == n) & within
        return np.flatnonzero(mine)

    def _act(self, event: LifeEvent) -> Callable[[Switched, int], None]:
        who = self.concerned(event)
        links = self._links

        def off(at: int) -> None:
            for device in who.tolist():
                links.close(device, at, again=False)

        def on(_: Switched, at: int) -> None:
            back = who[links.state[who] == OFF]
            links.state[back] = WAIT
            links.retry_at[back] = at

        def outage(_: Switched, at: int) -> None:
            off(at)
            self._enter(at + int(event.for_s * 1e6), on)

        def reconnect(_: Switched, at: int) -> None:
            for device in who.tolist():
                links.close(device, at)

        def reboot(switched: Switched, at: int) -> None:
            off(at)
            if not event.spool_kept:
                self.forget(who)
            again = at + int(event.for_s * 1e6)
            self._people.reboot(who, self.number(who), np.full(len(who), again))
            switched(who)
            self._enter(again, on)

        def clock_step(switched: Switched, _: int) -> None:
            self._people.clock_step(who, self.number(who), int(event.step_s * 1e6))
            switched(who)

        acts = {"outage": outage, "reconnect": reconnect, "reboot": reboot, "clock_step": clock_step}
        return acts[event.kind]
