"""Nothing is freed by a ledger that does not say all that it has said."""

from datetime import timedelta

import pytest

from nbmlops import cleaning, health, layout, ledger, records
from nbmlops.errors import LedgerDamaged
from nbmlops.layout import LEDGER_REF
from teams import ran, trained


@pytest.fixture
def old(workspace):
    """A project with a version and a run that made none, both long ago."""
    workspace.made = trained(workspace, "version")
    ran(workspace, "old")
    workspace.now = lambda: records.utc_now() + timedelta(days=100)
    return workspace


@pytest.mark.parametrize("how", ["entry", "ref"])
def test_nothing_is_freed_while_the_ledger_is_not_whole(old, how):
    repo = old.repo
    month, head = repo.text("ls-tree", "--name-only", LEDGER_REF), ledger.head(repo)
    blob = repo.text("rev-parse", f"{LEDGER_REF}:{month}/00000001.json")
    loose = repo.common_dir / "objects" / blob[:2] / blob[2:]
    saved = loose.read_bytes()
    if how == "entry":
        loose.unlink()
    else:
        repo.run("update-ref", "-d", LEDGER_REF)
    for dry_run in (True, False):
        with pytest.raises(LedgerDamaged, match="nothing is freed while the ledger") as refused:
            cleaning.clean(old, dry_run=dry_run)
        assert "nbmlops doctor" in refused.value.hint
    assert all(old.artifacts.has(file.digest) for file in old.made.files.values())
    if how == "entry":
        layout.write_file(loose, saved)
    else:
        repo.run("update-ref", LEDGER_REF, head)
    assert "run" in {item.kind for item in cleaning.clean(old).freed}
    assert health.check(old).findings == ()
