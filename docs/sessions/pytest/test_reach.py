import pytest

pytestmark = pytest.mark.cluster(nodes=3)
REACH = "timeout 1 bash -c '</dev/tcp/{}/22'"


def test_every_node_reaches_the_next(cluster):
    cluster["n1"].succeed(REACH.format("n2"))
    cluster["n2"].succeed(REACH.format("n3"))


def test_the_others_are_still_there(cluster):
    with cluster.timeline.step("n3 loses its network"):
        cluster.isolate("n3")
    with cluster.timeline.step("who is there?"):
        cluster["n1"].succeed(REACH.format("n2"))
        cluster["n1"].succeed(REACH.format("n3"))
