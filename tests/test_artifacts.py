import os

import pytest

from nbmlops.artifacts import Artifacts
from nbmlops.errors import ArtifactCorrupt, ArtifactMissing, InvalidName


def test_bytes_come_back_by_digest_and_are_kept_once(tmp_path):
    kept = Artifacts(tmp_path)
    digest = kept.put(b"abc")
    assert kept.put(b"abc") == digest
    (tmp_path / "f").write_bytes(b"abc")
    assert kept.put_file(tmp_path / "f") == digest
    assert kept.get(digest) == b"abc"


def test_a_flipped_bit_is_noticed_at_every_read(tmp_path):
    kept = Artifacts(tmp_path)
    digest = kept.put(b"abc")
    path = tmp_path / digest[:2] / digest[2:]
    os.chmod(path, 0o644)
    path.write_bytes(b"abb")
    with pytest.raises(ArtifactCorrupt):
        kept.get(digest)
    with pytest.raises(ArtifactCorrupt):
        kept.copy_to(digest, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert list(kept.damaged()) == [digest]


def test_what_is_not_there_and_what_is_no_digest_are_refused(tmp_path):
    kept = Artifacts(tmp_path)
    with pytest.raises(ArtifactMissing):
        kept.get("0" * 64)
    for name in ("../../etc/passwd", "A" * 64, "", "0" * 63, "0" * 64 + "\n"):
        with pytest.raises(InvalidName):
            kept.get(name)


def test_a_file_with_other_bytes_than_promised_is_not_taken(tmp_path):
    kept = Artifacts(tmp_path / "a")
    (tmp_path / "f").write_bytes(b"abc")
    with pytest.raises(ArtifactCorrupt):
        kept.put_file(tmp_path / "f", expected="0" * 64)
    assert [p for p in (tmp_path / "a").rglob("*") if p.is_file()] == []
