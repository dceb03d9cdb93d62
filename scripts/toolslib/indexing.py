"""Waiting for the index, with the daemon's own estimate on the bar."""

import time

from . import screen

POLL_S = 0.2


def wait_ready(collection, ask=lambda call: call()):
    """Polls until no build runs or waits; returns the last state. `ask` makes each call."""
    state = ask(collection.index)
    if state["state"] != "ready":
        with screen.Progress("building the index", 1000) as progress:
            while state["state"] != "ready":
                progress.reach(int(state["progress"] * 1000), state["eta_s"])
                time.sleep(POLL_S)
                state = ask(collection.index)
    if state["indexed_rows"] < state["rows"]:
        screen.note(f"the index holds {state['indexed_rows']:,} rows; the rest is scanned exactly")
    screen.note(
        f"{state['kind']} over {state['indexed_rows']:,} vectors, {state['bytes'] / 1e6:,.0f} MB"
    )
    return state
