"""The examples in the docstrings of the classes that people import run, and say what they say."""

import doctest
from types import ModuleType

import pytest

import data.history
import gnn.model.artifact
import graph.rings.index
import serve.cases.database
import serve.cases.records
import serve.decide.spending.profile
import serve.http.client

EXAMPLES = {
    data.history: "History",
    gnn.model.artifact: "Artifact",
    graph.rings.index: "RingIndex",
    serve.cases.database: "Database",
    serve.cases.records: "priority",
    serve.decide.spending.profile: "profile",
    serve.http.client: "RingwatchClient",
}


@pytest.mark.parametrize(("module", "name"), EXAMPLES.items(), ids=EXAMPLES.values())
def test_examples_of_public_classes_run(module: ModuleType, name: str) -> None:
    found = {test.name: test for test in doctest.DocTestFinder().find(module) if test.examples}
    assert f"{module.__name__}.{name}" in found
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    for test in found.values():
        runner.run(test)
    assert runner.summarize(verbose=False).failed == 0
