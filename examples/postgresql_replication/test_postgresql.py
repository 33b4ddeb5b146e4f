"""
PostgreSQL with a standby: what a power cut, and what a failover, does to committed rows.

Three nodes: a primary (db1), a standby that streams from it (db2), and a client that inserts rows
one by one and notes which of them the server has confirmed. All software is Debian's.

Run it with ``pytest examples/postgresql_replication``.

What it shows:

- how to make a standby with ``pg_basebackup`` once, keep the pair as a snapshot, and start every
  test from it;
- that a crash loses no confirmed row, and that it loses some, for certain, with
  ``synchronous_commit = off`` and a WAL writer that has not come round to writing them: the power
  cut is a real one, and the test would notice;
- that a failover to an asynchronous standby loses confirmed rows, and to a synchronous one does
  not: the client waits instead;
- how the old primary is rewound with ``pg_rewind`` and becomes the standby of the new one.

What it does not show: disks that lose what was not flushed. A crash here ends all processes at
once, so what is in their memory is lost; what they had written is in the memory of the host's
kernel, and survives, flushed or not. It does not replace fencing and monitoring either (Patroni,
repmgr, Pacemaker): the test decides who is promoted, and when.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
import writer

from redock.bootstrap import Bootstrap
from redock.cluster import Cluster, Node, NodeSpec

#: Seconds for what takes a moment when the machine has nothing else to do.
PATIENCE = 90.0
PROGRAMS = "/usr/lib/postgresql/15/bin"
DATA = "/var/lib/postgresql/data"
LOG = "/var/log/postgresql/server.log"

SERVICE = f"""\
[program:postgres]
command = {PROGRAMS}/postgres -D {DATA} -c listen_addresses=* -c hba_file=/etc/postgresql/hba.conf
    -c wal_sender_timeout=5s -c wal_retrieve_retry_interval=500ms -c unix_socket_directories=/tmp
user = postgres
stopsignal = INT
stopwaitsecs = 60
redirect_stderr = true
stdout_logfile = {LOG}
"""

#: Nobody but this host gets at the network of the cluster.
ACCESS = """\
host all all localhost trust
host all all samenet trust
host replication all samenet trust
"""


def provision(host: Bootstrap) -> None:
    """Make a server with an empty database; which of them is a standby is decided later."""
    host.file("/etc/postgresql/hba.conf", ACCESS)
    host.file("/etc/supervisor/conf.d/postgres.conf", SERVICE)
    # Checksums are one of two things that pg_rewind needs.
    initdb = f"{PROGRAMS}/initdb --data-checksums --encoding=UTF8 --no-locale -D {DATA}"
    host.command(as_postgres(initdb), creates=f"{DATA}/PG_VERSION")


def as_postgres(command: str) -> str:
    return f"cd / && runuser -u postgres -- {command}"


def make_standby(node: Node, primary: Node) -> None:
    """Replace the data of a node by a copy of another one's, and stream from there."""
    node.succeed(f"supervisorctl stop postgres && rm -rf {DATA}", timeout=PATIENCE)
    node.succeed(
        as_postgres(
            f"{PROGRAMS}/pg_basebackup -h {primary.name} -D {DATA} --write-recovery-conf"
            " --checkpoint=fast --wal-method=stream"
        ),
        timeout=PATIENCE,
    )
    node.succeed("supervisorctl start postgres", timeout=PATIENCE)


@pytest.fixture(scope="module")
def replicated() -> Iterator[Cluster]:
    """A primary, a standby and a client, and a snapshot of them."""
    nodes = [
        NodeSpec("db1", packages=["postgresql"], provision=provision),
        NodeSpec("db2", packages=["postgresql"], provision=provision),
        NodeSpec("client", packages=["python3-psycopg2"]),
    ]
    with Cluster(nodes) as cluster:
        db1, db2, _ = cluster
        wait_until_writable(db1)
        sql(db1, "CREATE TABLE journal (number integer PRIMARY KEY)")
        make_standby(db2, db1)
        wait_until_streaming(db1)
        cluster.snapshot("ready")
        yield cluster


@pytest.fixture
def cluster(replicated: Cluster) -> Cluster:
    """The same, as good as new."""
    replicated.restore("ready")
    wait_until_streaming(replicated["db1"])
    return replicated


# What the tests say is said with these.


def psql(text: str) -> str:
    return f'psql -h localhost -U postgres -qAtX -v ON_ERROR_STOP=1 -c "{text}"'


def sql(node: Node, text: str) -> str:
    return node.succeed(psql(text), timeout=PATIENCE).strip()


def wait_until_writable(node: Node) -> None:
    node.wait_until_succeeds(psql("SELECT pg_is_in_recovery()") + " | grep -qx f", timeout=PATIENCE)


def wait_until_streaming(primary: Node) -> None:
    """Wait until the primary has a standby that has everything it has."""
    node_is_up_to_date = "state = 'streaming' AND replay_lsn = pg_current_wal_flush_lsn()"
    primary.wait_until_succeeds(
        psql(f"SELECT count(*) FROM pg_stat_replication WHERE {node_is_up_to_date}")
        + " | grep -qx 1",
        timeout=PATIENCE,
    )


def hold_wal_writer(node: Node) -> None:
    """
    Suspend the process that writes, in its own time, what no commit waits for.

    It does so at every full page of the log, whatever ``wal_writer_delay`` says. A server that goes
    down between two rows at such a moment has lost nothing, once in some fifty times.
    """
    pid = sql(node, "SELECT pid FROM pg_stat_activity WHERE backend_type = 'walwriter'")
    node.succeed(f"kill -STOP {int(pid)}")


def journal(node: Node) -> set[int]:
    """Read which rows there are."""
    return {int(number) for number in sql(node, "SELECT number FROM journal").split()}


class Writer:
    """The client at work; ``confirmed`` is what the server has told it."""

    def __init__(self, client: Node, server: Node) -> None:
        self.confirmed: list[int] = []
        self.lost_connection = False
        self.gateway = client.gateway()
        channel = self.gateway.remote_exec(writer)
        channel.send(server.name)
        channel.setcallback(self.hear)

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, *exception: object) -> None:
        self.gateway.exit()

    def hear(self, number: int | None) -> None:
        if number is None:
            self.lost_connection = True
        else:
            self.confirmed.append(number)

    def wait_for(self, count: int) -> None:
        """Wait until so many more rows are confirmed."""
        wanted = len(self.confirmed) + count
        deadline = time.monotonic() + PATIENCE
        while len(self.confirmed) < wanted:
            assert time.monotonic() < deadline, f"{len(self.confirmed)} rows, not {wanted}"
            assert not self.lost_connection
            time.sleep(0.02)

    def wait_for_end(self) -> list[int]:
        """Wait until it has noticed that its server has gone."""
        deadline = time.monotonic() + PATIENCE
        while not self.lost_connection:
            assert time.monotonic() < deadline, "the client still has a server"
            time.sleep(0.02)
        return self.confirmed


# The tests.


def test_what_is_committed_arrives_at_the_standby(cluster: Cluster) -> None:
    db1, db2, _ = cluster
    sql(db1, "INSERT INTO journal SELECT generate_series(1, 100)")
    wait_until_streaming(db1)
    assert journal(db2) == set(range(1, 101))
    refused = db2.fail(psql("INSERT INTO journal VALUES (101)"))
    assert "read-only transaction" in refused.stderr


@pytest.mark.parametrize("durable", ["on", "off"])
def test_a_power_cut_and_committed_rows(cluster: Cluster, durable: str) -> None:
    db1, _, client = cluster
    sql(db1, f"ALTER SYSTEM SET synchronous_commit = {durable}")
    sql(db1, "SELECT pg_reload_conf()")
    db1.wait_until_succeeds(
        psql("SHOW synchronous_commit") + f" | grep -qx {durable}", timeout=PATIENCE
    )
    hold_wal_writer(db1)

    with Writer(client, db1) as load:
        load.wait_for(100)
        db1.crash()
        confirmed = set(load.wait_for_end())

    wait_until_writable(db1)
    found = journal(db1)
    if durable == "on":
        # One more may have been committed, and its confirmation lost.
        assert confirmed <= found <= confirmed | {max(confirmed) + 1}
    else:
        assert max(found, default=0) < max(confirmed)
        assert found == set(range(1, len(found) + 1)), "what is lost is the end"


@pytest.mark.parametrize("kind", ["asynchronous", "synchronous"])
def test_a_failover_and_committed_rows(cluster: Cluster, kind: str) -> None:
    old, new, client = cluster
    if kind == "synchronous":
        sql(old, "ALTER SYSTEM SET synchronous_standby_names = '*'")
        sql(old, "SELECT pg_reload_conf()")
        # It takes effect when the walsender looks at it.
        old.wait_until_succeeds(
            psql("SELECT sync_state FROM pg_stat_replication") + " | grep -qx sync",
            timeout=PATIENCE,
        )

    with Writer(client, old) as load:
        load.wait_for(50)
        with cluster.partition([old, client], [new]):
            if kind == "synchronous":
                # The client is waiting for its confirmation, and would wait for ever.
                old.wait_until_succeeds(
                    psql("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'")
                    + " | grep -qx 1",
                    timeout=PATIENCE,
                )
            else:
                load.wait_for(50)
            sql(new, "SELECT pg_promote()")
            wait_until_writable(new)
            # Fencing: nobody may go on to work with the old one when the others are back.
            old.succeed("supervisorctl stop postgres", timeout=PATIENCE)
            confirmed = set(load.wait_for_end())

    lost = confirmed - journal(new)
    if kind == "synchronous":
        assert not lost
    else:
        assert len(lost) >= 50
        assert lost == set(range(min(lost), max(confirmed) + 1)), "what is lost is the end"

    # What only the old one has is undone; then it follows the new one. For that, the new one
    # needs a checkpoint in its new life.
    sql(new, "CHECKPOINT")
    source = f"--source-server='host={new.name} user=postgres dbname=postgres'"
    old.succeed(
        as_postgres(f"{PROGRAMS}/pg_rewind -D {DATA} {source} --write-recovery-conf"),
        timeout=PATIENCE,
    )
    old.succeed("supervisorctl start postgres", timeout=PATIENCE)
    sql(new, f"INSERT INTO journal VALUES ({max(confirmed) + 1000})")
    wait_until_streaming(new)
    assert journal(old) == journal(new)
