"""R3: a record and its files can be changed together, but not under a trusted signature."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from arclight import failpoint
from arclight.bundle import ModelBundle, Resumed, TrainSettings
from arclight.catalog import Catalog
from arclight.errors import IntegrityError, RefusedError, SpecError
from arclight.signing import PURPOSE, Signer, TrustedKeys, parse_trusted, signed_bytes
from arclight.store import Store
from tests.arclight.made_records import make_bundle

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

OURS = Signer(Ed25519PrivateKey.from_private_bytes(b"1" * 32), "ours")
THEIRS = Signer(Ed25519PrivateKey.from_private_bytes(b"2" * 32), "theirs")
TRUST = TrustedKeys((OURS.public,), "trusted.txt")
BUNDLE = make_bundle().model_copy(update={"number": 3})


def is_trusted(bundle: ModelBundle, signer: Signer = OURS) -> bool:
    try:
        TRUST.check(bundle, (signer.sign(BUNDLE),))
    except RefusedError:
        return False
    return True


def leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the way to every plain value of a document."""
    if isinstance(value, dict | list):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from leaves(inner, (*path, key))
    else:
        yield path


DOCUMENT = json.loads(BUNDLE.to_json())
LEAVES = [p for p in leaves(DOCUMENT) if p not in {("kind",), ("version",)}]
OTHER = {str: lambda v: v + "x", int: lambda v: v + 1, float: lambda v: v / 2 + 0.1}


@pytest.mark.parametrize("path", LEAVES, ids=lambda p: ".".join(map(str, p)))
def test_R3_no_value_of_a_record_can_be_changed(path: tuple[Any, ...]) -> None:
    document = json.loads(BUNDLE.to_json())
    inner = document
    for step in path[:-1]:
        inner = inner[step]
    old = inner[path[-1]]
    inner[path[-1]] = OTHER.get(type(old), lambda _: "2013")(old)
    try:
        changed = ModelBundle.from_json(json.dumps(document))
    except IntegrityError:
        return  # no record at all
    assert not is_trusted(changed)


@given(st.integers(0, len(BUNDLE.to_json().encode()) - 1), st.integers(1, 255))
def test_R3_a_changed_byte_is_refused_or_means_the_same(place: int, change: int) -> None:
    content = bytearray(BUNDLE.to_json().encode())
    content[place] ^= change
    try:
        read = ModelBundle.from_json(bytes(content))
    except IntegrityError:
        return
    # trusted only where nothing was changed but the spelling, such as a space that became a tab
    assert is_trusted(read) == (read.to_json() == BUNDLE.to_json())


@given(st.integers(0, 127), st.sampled_from("0123456789abcdef"))
def test_R3_a_changed_digit_of_a_signature_is_refused(place: int, digit: str) -> None:
    made = OURS.sign(BUNDLE)
    text = made.signature[:place] + digit + made.signature[place + 1 :]
    forged = made.model_copy(update={"signature": text})
    if text == made.signature:
        assert TRUST.check(BUNDLE, (forged,)) == OURS.public
    else:
        with pytest.raises(RefusedError, match="does not fit the record"):
            TRUST.check(BUNDLE, (forged,))


def test_a_signature_from_before_settings_were_kept_holds() -> None:
    old = make_bundle()
    assert old.settings is None
    assert b'"settings"' not in signed_bytes(old)
    assert not {"settings", "resumed"} & json.loads(old.to_json()).keys()
    assert ModelBundle.from_json(old.to_json()) == old
    settings = TrainSettings(rounds=3, early_stopping=None, imbalance="weight", seed=0)
    assert b'"imbalance":"weight"' in signed_bytes(old.model_copy(update={"settings": settings}))
    again = Resumed(rounds=3, workers=1, exact=False)
    assert b'"exact":false' in signed_bytes(old.model_copy(update={"resumed": (again,)}))


def test_a_signature_of_the_bare_record_does_not_fit() -> None:
    """Nothing that was signed for another purpose can be passed off as ours."""
    bare = OURS.private.sign(signed_bytes(BUNDLE).removeprefix(PURPOSE)).hex()
    forged = OURS.sign(BUNDLE).model_copy(update={"signature": bare})
    with pytest.raises(RefusedError):
        TRUST.check(BUNDLE, (forged,))


@pytest.mark.parametrize("text", ["", "zz" * 64, "00" * 63, "00" * 65, "é" * 128, "AA" * 64])
def test_what_is_no_signature_is_refused(text: str) -> None:
    odd = OURS.sign(BUNDLE).model_copy(update={"signature": text})
    with pytest.raises(RefusedError, match="does not fit the record"):
        TRUST.check(BUNDLE, (odd,))


def test_the_refusal_names_model_key_and_way_out() -> None:
    with pytest.raises(
        RefusedError, match=r"'flights@3' .* 'trusted.txt', but it has no sig"
    ) as e:
        TRUST.check(BUNDLE, ())
    assert "arclight keys sign" in e.value.message
    assert e.value.exit_status == 3
    with pytest.raises(RefusedError, match=f"by key {THEIRS.public.id} only, which is not one"):
        TRUST.check(BUNDLE, (THEIRS.sign(BUNDLE),))
    edited = BUNDLE.model_copy(update={"threshold": 0.1})
    with pytest.raises(RefusedError, match=rf"key {OURS.public.id} \(ours\) does not fit"):
        TRUST.check(edited, (OURS.sign(BUNDLE), THEIRS.sign(edited)))


def test_one_fitting_signature_of_several_is_enough() -> None:
    old = OURS.sign(BUNDLE).model_copy(update={"signature": "00" * 64})
    assert TRUST.check(BUNDLE, (THEIRS.sign(BUNDLE), old, OURS.sign(BUNDLE))) == OURS.public


def test_an_empty_list_of_keys_trusts_nobody() -> None:
    with pytest.raises(RefusedError):
        TrustedKeys((), "empty").check(BUNDLE, (OURS.sign(BUNDLE),))


def test_a_private_key_is_not_shown() -> None:
    assert "Ed25519PrivateKey" not in repr(Catalog(Store(root=None), signer=OURS))  # type: ignore[arg-type]


# --------------------------------------------------------------------------- trusted keys


def test_lines_are_read_back_with_comments_and_blank_lines() -> None:
    text = f"# who trains\n\n{OURS.public.line}\n  {THEIRS.public.line}  \n"
    assert parse_trusted(text, source="f").keys == (OURS.public, THEIRS.public)


@pytest.mark.parametrize(
    "line",
    ["ed25519", f"rsa {OURS.public.line[8:]}", OURS.public.line + " more", "ed25519 AAAA ours",
     "ed25519 !!!! ours", OURS.public.line.replace("ours", "../x"), OURS.public.line + "\x1b[2J",
     f"{OURS.public.line}\n{OURS.public.line.replace('ours', 'again')}"],
)  # fmt: skip
def test_other_lines_are_refused_with_their_number(line: str) -> None:
    with pytest.raises(SpecError, match=r"^line \d of 'f' must be 'ed25519 BASE64 NAME'") as e:
        parse_trusted(line, source="f")
    assert "\x1b" not in e.value.message


# ------------------------------------------------------------------------------ publishing


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def trusted(catalog: Catalog, ref: str = "flights") -> bool:
    bundle = catalog.model(ref)
    try:
        TRUST.check(bundle, catalog.signatures(bundle))
    except RefusedError:
        return False
    return True


def test_what_is_published_with_a_key_is_signed(store: Store) -> None:
    catalog = Catalog(store, signer=OURS)
    catalog.publish_model(make_bundle())
    second = catalog.publish_model(make_bundle(key="k2"))
    assert trusted(catalog, "flights@1")
    assert trusted(catalog, "flights@2")
    assert [s.model for s in catalog.signatures(second)] == ["flights@2"]


@pytest.mark.parametrize(
    "point", ["models.signatures.before-link", "models.signatures.after-link",
              "models.versions.before-link", "models.versions.after-link"],
)  # fmt: skip
def test_killed_anywhere_a_version_that_is_there_is_signed(
    store: Store, point: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(name: str) -> None:
        if name == point:
            raise SystemExit(9)

    monkeypatch.setattr("arclight.store.reach", die)
    catalog = Catalog(store, signer=OURS)
    with pytest.raises(SystemExit):
        catalog.publish_model(make_bundle())
    assert all(trusted(catalog, b.ref) for b in catalog.models("flights"))
    monkeypatch.setattr("arclight.store.reach", failpoint.reach)
    # the same again; its folder is another one, as after a new training
    again = make_bundle().model_copy(update={"folder": "models/flights/data/4567"})
    assert catalog.publish_model(again).number == 1
    assert trusted(catalog)


def test_the_same_key_again_signs_nothing_that_lay_in_the_store(store: Store) -> None:
    """Else a record that was edited would be signed by the next run of the same command."""
    Catalog(store).publish_model(make_bundle())
    catalog = Catalog(store, signer=OURS)
    catalog.publish_model(make_bundle())
    assert catalog.signatures(catalog.model("flights")) == ()


def test_a_version_is_signed_later_once_a_key(store: Store) -> None:
    catalog = Catalog(store)
    bundle = catalog.publish_model(make_bundle())
    assert not trusted(catalog)
    for signer in (THEIRS, OURS, OURS):
        catalog.sign_model(bundle, signer)
    assert trusted(catalog)
    assert len(catalog.signatures(bundle)) == 2


def test_a_damaged_signature_hides_no_other(store: Store) -> None:
    catalog = Catalog(store, signer=THEIRS)
    bundle = catalog.publish_model(make_bundle())
    for text in ("", "{", '{"kind": "alias"}'):
        store.publish(len(store.numbers("models", "flights", "signatures", "1")) + 1, text,
                      "models", "flights", "signatures", "1")  # fmt: skip
    catalog.sign_model(bundle, OURS)
    assert trusted(catalog)


def test_R3_another_models_signed_record_is_not_taken_for_this_one(store: Store) -> None:
    catalog = Catalog(store, signer=OURS)
    catalog.publish_model(make_bundle())
    catalog.publish_model(make_bundle(name="weather"))
    here = store.path("models", "flights", "versions", "1.json")
    here.write_bytes(store.path("models", "weather", "versions", "1.json").read_bytes())
    with pytest.raises(IntegrityError, match="must hold flights@1, but holds weather@1"):
        catalog.model("flights@1")
