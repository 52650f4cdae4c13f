"""stub"""
from collections.abc import Iterator
from faults_sections.place import Outcome, Place
def faults(place: Place, short: bool) -> Iterator[Outcome]:
    return iter(())
