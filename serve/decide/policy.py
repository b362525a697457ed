"""From a situation to a decision: what a policy is, and the one that decides where none was activated."""

from typing import Protocol

from serve.decide.decision import USUAL_ACTION, Decided, Decision, Situation
from serve.settings import Settings


class Policy(Protocol):
    """A pure function from situations to decisions."""

    @property
    def version(self) -> str:
        """Named in every answer."""

    def decide(self, situation: Situation) -> list[Decided]:
        """Decide payments, [n]. Mandates are none of its business: whoever asks it (`Decider`) sees to them."""

    def at_once(self, probability: float) -> Decided:
        """Decide a payment of which nothing else is known, at next to no cost."""


def decide(probability: float, settings: Settings) -> Decision:
    """The decision that the thresholds give a probability."""
    if probability >= settings.decline:
        return "decline"
    if probability >= settings.review:
        return "review"
    return "challenge" if probability >= settings.challenge else "approve"


class ThresholdPolicy:
    """The policy that stands until one is activated: thresholds of the settings on the probability.

    Args:
        settings: `challenge`, `review` and `decline`.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.version = f"thresholds {settings.challenge:g}/{settings.review:g}/{settings.decline:g}"
        self._decided = {
            decision: Decided(decision, action, self.version)  # type: ignore[arg-type]
            for decision, action in USUAL_ACTION.items()
        }

    def decide(self, situation: Situation) -> list[Decided]:
        """Decide payments, [n]."""
        return [self.at_once(p) for p in situation.probability.tolist()]

    def at_once(self, probability: float) -> Decided:
        """Decide a payment of which nothing else is known."""
        return self._decided[decide(probability, self._settings)]
