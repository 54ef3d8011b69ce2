"""Bearer tokens: who is let in, and how tokens change without a restart."""

import hashlib
import os

import pytest

from service.errors import Unauthenticated
from service.transports.auth import Tokens


def digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def test_without_a_file_everybody_is_let_in():
    Tokens(None).check([])


@pytest.mark.parametrize("authorization", ["", "Bearer", "Bearer ", "Basic one", "one", "Bearer three", "Bearer é"])
def test_others_are_turned_away(tmp_path, authorization):
    file = tmp_path / "tokens"
    file.write_text(f"# é\n{digest('one')}\n{digest('two').upper()}  # the second\n\n")
    tokens = Tokens(file)
    tokens.check(["Bearer one"])
    tokens.check(["bearer two"])
    with pytest.raises(Unauthenticated):
        tokens.check([authorization])


@pytest.mark.parametrize("authorizations", [["Bearer one"] * 2, ["Bearer one", "Bearer two"], ["Bearer one", ""]])
def test_more_than_one_authorization_is_turned_away_even_if_all_are_right(tmp_path, authorizations):
    file = tmp_path / "tokens"
    file.write_text(f"{digest('one')}\n{digest('two')}")
    for several in (authorizations, authorizations[::-1]):
        with pytest.raises(Unauthenticated, match="2 Authorization headers"):
            Tokens(file).check(several)


def test_the_digest_is_no_token(tmp_path):
    file = tmp_path / "tokens"
    file.write_text(digest("one"))
    with pytest.raises(Unauthenticated):
        Tokens(file).check(f"Bearer {digest('one')}")


def test_a_changed_file_is_read_again_and_a_lost_one_lets_nobody_in(tmp_path):
    file = tmp_path / "tokens"
    file.write_text(digest("one"))
    tokens = Tokens(file)
    tokens.check(["Bearer one"])
    file.write_text(digest("two"))
    os.utime(file, ns=(1, 1))
    tokens.check(["Bearer two"])
    with pytest.raises(Unauthenticated):
        tokens.check(["Bearer one"])
    file.unlink()
    with pytest.raises(Unauthenticated):
        tokens.check(["Bearer two"])


def test_a_file_that_changes_twice_in_a_moment_is_read_again(tmp_path):
    file = tmp_path / "tokens"
    file.write_text("")
    os.utime(file, ns=(1, 1))
    tokens = Tokens(file)
    with pytest.raises(Unauthenticated):
        tokens.check(["Bearer one"])
    file.write_text(digest("one"))
    os.utime(file, ns=(1, 1))
    tokens.check(["Bearer one"])


def test_a_line_that_is_no_digest_is_warned_of_without_being_quoted(tmp_path, caplog):
    file = tmp_path / "tokens"
    file.write_bytes(f"# clients\n{digest('one')}  -\nopen sesame\n{digest('two')}\n".encode() + b"\xff\n")
    tokens = Tokens(file)
    tokens.check(["Bearer two"])
    for authorization in ("Bearer one", "Bearer open sesame"):
        with pytest.raises(Unauthenticated):
            tokens.check([authorization])
    lines = [record.getMessage() for record in caplog.records]
    assert [line[: len("line 2")] for line in lines] == ["line 2", "line 3", "line 5"]
    assert not any("sesame" in line for line in lines)
