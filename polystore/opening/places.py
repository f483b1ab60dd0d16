"""The second place of a copy on its server, where a rebuild builds it anew: a store of its own name, `search~2`, made
of the configuration of the first."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import AsyncExitStack

from msgspec.structs import replace

from polystore.config import StoreConfig
from polystore.env import Env
from polystore.opening.latecomers import Known, answering
from polystore.opening.placing import stored
from polystore.selection.moves import origin


def placed_config(name: str, configs: Mapping[str, StoreConfig]) -> StoreConfig | None:
    """How the store of a second place is opened; None for other names, and where the first is not configured."""
    one = configs.get(origin(name))
    return None if one is None or origin(name) == name else replace(one, options={**one.options, "place": 2})


def with_places(configs: Mapping[str, StoreConfig], journals: Iterable[str]) -> dict[str, StoreConfig]:
    """The second places that remembered placements deliver to."""
    found: dict[str, StoreConfig] = {}
    for text in journals:
        one = stored(text)
        for name in (*one.facets.values(), *one.upcoming.values(), *one.leaving.values()):
            if (config := placed_config(name, configs)) is not None:
                found[name] = config
    return found


class Places:
    """Opens second places while all goes on; `exits` closes them."""

    def __init__(self, configs: Mapping[str, StoreConfig], env: Env, known: Known, exits: AsyncExitStack) -> None:
        self._configs = configs
        self._env = env
        self._known = known
        self._exits = exits

    async def reach(self, name: str) -> None:
        """Open the store of this name and let everybody find it, if it is a second place. Raises what it raises."""
        config = placed_config(name, self._configs)
        if config is None or name in self._known.stores:
            return
        store = await answering(name, config, self._env)
        if name in self._known.stores:
            await store.aclose()  # somebody was faster
            return
        self._exits.push_async_callback(store.aclose)
        self._known.stores[name] = self._known.delivered[name] = store
