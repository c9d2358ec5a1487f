#!/usr/bin/env python3
"""Writes sealed-v1.json, the test vectors of the sealed format, version 1.

This is a second implementation of the format, written from its description and not from the Rust
code: HKDF-Expand from the standard library's HMAC, AES-256-GCM from the `cryptography` package.
The Rust tests must reproduce its good values bit by bit and refuse the others in the way each one
names. Run it only when a vector is added; the output is the same every time.

    python3 tests/vectors/make_sealed_v1.py > tests/vectors/sealed-v1.json
"""

import hashlib
import hmac
import json
import struct

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

TEXT_PARTS = ["tenant", "owner_kind", "owner_id", "record_kind", "record_id", "field", "key_id"]
HEADER = 3


def seeded(name, length):
    """Repeatable bytes for a name."""
    return hashlib.sha256(b"valetkey sealed v1 vectors: " + name.encode()).digest()[:length]


def encode(context):
    parts = [b"valetkey/seal/v1"]
    parts += [context[name].encode() for name in TEXT_PARTS]
    parts.append(struct.pack(">q", context["generation"]))
    return b"".join(struct.pack(">I", len(part)) + part for part in parts)


def expand(key, info, length):
    output, block, counter = b"", b"", 1
    while len(output) < length:
        block = hmac.new(key, block + info + bytes([counter]), hashlib.sha256).digest()
        output += block
        counter += 1
    return output[:length]


def value_key(key, context):
    both = expand(key, encode(context), 64)
    return both[:32], both[32:]


def header(context, commitment, nonce):
    key_id = context["key_id"].encode()
    return bytes([1, 1, len(key_id)]) + key_id + commitment + nonce


def seal(key, context, nonce, plaintext):
    cipher_key, commitment = value_key(key, context)
    return header(context, commitment, nonce) + AESGCM(cipher_key).encrypt(nonce, plaintext, encode(context))


# --- a ciphertext that AES-GCM accepts under two keys: see make_two_key_value -------------------


def gf_multiply(a, b):
    """In GF(2^128) as GCM writes it: the first bit is the coefficient of x^0."""
    product = 0
    for bit in range(127, -1, -1):
        if (b >> bit) & 1:
            product ^= a
        a = (a >> 1) ^ (0xE1 << 120 if a & 1 else 0)
    return product


def gf_inverse(a):
    """a to the power of 2^128 - 2."""
    result, power = 1 << 127, a
    for _ in range(127):
        power = gf_multiply(power, power)
        result = gf_multiply(result, power)
    return result


def aes_block(key, block):
    encryptor = Cipher(algorithms.AES(key), modes.ECB()).encryptor()
    return int.from_bytes(encryptor.update(block) + encryptor.finalize(), "big")


def ghash(point, blocks):
    state = 0
    for block in blocks:
        state = gf_multiply(state ^ block, point)
    return state


def make_two_key_value(one, other, context, nonce):
    """One block of ciphertext and one tag that are right under both value keys.

    The tag is GHASH(aad, C, lengths) + E(nonce). Setting both tags equal gives one linear
    equation for the block C: C * (H1^2 + H2^2) = everything else.
    """
    aad = encode(context)
    padded = aad + bytes(-len(aad) % 16)
    blocks = [int.from_bytes(padded[at : at + 16], "big") for at in range(0, len(padded), 16)]
    lengths = (len(aad) * 8) << 64 | 128
    keys = [value_key(key, context)[0] for key in (one, other)]
    points = [aes_block(key, bytes(16)) for key in keys]
    masks = [aes_block(key, nonce + b"\0\0\0\1") for key in keys]
    rest = 0
    for point, mask in zip(points, masks):
        rest ^= ghash(point, blocks + [0, lengths]) ^ mask
    squares = gf_multiply(points[0], points[0]) ^ gf_multiply(points[1], points[1])
    block = gf_multiply(rest, gf_inverse(squares))
    tag = ghash(points[0], blocks + [block, lengths]) ^ masks[0]
    body = block.to_bytes(16, "big") + tag.to_bytes(16, "big")
    plaintexts = [AESGCM(key).decrypt(nonce, body, aad) for key in keys]
    return header(context, value_key(one, context)[1], nonce) + body, plaintexts


# --- the vectors ---------------------------------------------------------------------------------

BASE = {
    "tenant": "ten_06fpl3bgn1vsnr8o1kq0000001",
    "owner_kind": "user",
    "owner_id": "usr_06fpl3bgn1vsnr8o1kq0000002",
    "record_kind": "credential",
    "record_id": "crd_06fpl3bgn1vsnr8o1kq0000003",
    "field": "refresh_token",
    "key_id": "dky_06fpl3bgn1vsnr8o1kq0000004",
    "generation": 3,
}
KEY = seeded("key", 32)


def good(name, context, plaintext, key=KEY):
    nonce = seeded("nonce of " + name, 12)
    return {
        "name": name,
        "key": key.hex(),
        "context": context,
        "nonce": nonce.hex(),
        "plaintext": plaintext.hex(),
        "sealed": seal(key, context, nonce, plaintext).hex(),
    }


def bad(name, expect, sealed, context=BASE, key=KEY):
    return {"name": name, "expect": expect, "key": key.hex(), "context": context, "sealed": sealed.hex()}


GOOD = [
    good("a refresh token", BASE, b"1//0g-refresh-token"),
    good("an empty value", BASE, b""),
    good("exactly one block", BASE, bytes(range(16))),
    good("a value of 300 bytes", BASE, (seeded("long", 32) * 10)[:300]),
    good("the first generation", {**BASE, "generation": 0}, b"token"),
    good("a negative generation", {**BASE, "generation": -1}, b"token"),
    good("the last generation", {**BASE, "generation": 2**63 - 1}, b"token"),
    good("letters outside ASCII", {**BASE, "record_id": "Zoë/日本", "key_id": "schlüssel"}, "Grüße".encode()),
    good("empty parts", {**BASE, "owner_id": "", "record_id": "", "field": ""}, b"token"),
    good("the longest key id", {**BASE, "key_id": "k" * 255}, b"token"),
    good(
        "a wrapped data key",
        {
            **BASE,
            "owner_kind": "tenant",
            "owner_id": BASE["tenant"],
            "record_kind": "data_key",
            "record_id": BASE["key_id"],
            "field": "wrapped",
            "key_id": "tky_06fpl3bgn1vsnr8o1kq0000005",
            "generation": 0,
        },
        KEY,
        seeded("tenant key", 32),
    ),
]


def changed(sealed, at, value):
    return sealed[:at] + bytes([value]) + sealed[at + 1 :]


def swapped():
    sealed = bytes.fromhex(GOOD[0]["sealed"])
    others = {
        "record": {"record_id": "crd_06fpl3bgn1vsnr8o1kq0000009"},
        "record kind": {"record_kind": "integration"},
        "field": {"field": "access_token"},
        "owner": {"owner_id": "usr_06fpl3bgn1vsnr8o1kq0000009"},
        "owner kind": {"owner_kind": "tenant"},
        "tenant": {"tenant": "ten_06fpl3bgn1vsnr8o1kq0000009"},
    }
    for what, change in others.items():
        yield bad(f"moved to another {what}", "refused", sealed, {**BASE, **change})
    yield bad("put back under a later generation", "refused", sealed, {**BASE, "generation": 4})
    yield bad("an earlier generation", "refused", sealed, {**BASE, "generation": 2})
    moved = {**BASE, "owner_id": BASE["owner_id"] + "c", "record_kind": "redential"}
    yield bad("a letter moved across a boundary", "refused", sealed, moved)


def damaged():
    sealed = bytes.fromhex(GOOD[0]["sealed"])
    id_length = sealed[2]
    commitment = HEADER + id_length
    nonce, body = commitment + 32, commitment + 44
    yield bad("the wrong key", "refused", sealed, key=seeded("another key", 32))
    yield bad("the wrong commitment, first byte", "refused", changed(sealed, commitment, sealed[commitment] ^ 1))
    yield bad("the wrong commitment, last byte", "refused", changed(sealed, nonce - 1, sealed[nonce - 1] ^ 0x80))
    yield bad("another nonce", "refused", changed(sealed, nonce, sealed[nonce] ^ 1))
    yield bad("another first byte of ciphertext", "refused", changed(sealed, body, sealed[body] ^ 1))
    yield bad("another last byte of the tag", "refused", changed(sealed, len(sealed) - 1, sealed[-1] ^ 1))
    yield bad("trailing garbage", "refused", sealed + b"\0")
    yield bad("twice in a row", "refused", sealed + sealed)
    yield bad("version 0", "malformed", changed(sealed, 0, 0))
    yield bad("version 2", "malformed", changed(sealed, 0, 2))
    yield bad("algorithm 0", "malformed", changed(sealed, 1, 0))
    yield bad("algorithm 2", "malformed", changed(sealed, 1, 2))
    yield bad("a key id of no length", "malformed", changed(sealed, 2, 0))
    yield bad("a key id longer than the value", "malformed", changed(sealed, 2, 255))
    yield bad("a key id that is not text", "malformed", changed(sealed, HEADER, 0xFF))
    yield bad("a shorter key id", "unknown_key", changed(sealed, 2, id_length - 1))
    yield bad("an unknown key id", "unknown_key", changed(sealed, HEADER + id_length - 1, ord("9")))
    yield bad("a context that names another key", "unknown_key", sealed, {**BASE, "key_id": "dky_other"})
    both = changed(sealed, HEADER + id_length - 1, ord("9"))
    renamed = {**BASE, "key_id": BASE["key_id"][:-1] + "9"}
    yield bad("header and context renamed together", "refused", both, renamed)
    yield bad("plain text instead of a sealed value", "malformed", b"1//0g-refresh-token")
    yield bad("nothing", "malformed", b"")


def truncated():
    sealed = bytes.fromhex(GOOD[0]["sealed"])
    shortest = HEADER + sealed[2] + 32 + 12 + 16
    for length in range(len(sealed)):
        yield {"of": GOOD[0]["name"], "length": length, "expect": "malformed" if length < shortest else "refused"}


def two_keys():
    other = seeded("colliding key", 32)
    sealed, plaintexts = make_two_key_value(KEY, other, BASE, seeded("nonce of two keys", 12))
    assert plaintexts[0] != plaintexts[1]
    try:
        AESGCM(value_key(seeded("third", 32), BASE)[0]).decrypt(sealed[-44:-32], sealed[-32:], encode(BASE))
        raise AssertionError("the tag check does not work")
    except InvalidTag:
        pass
    return {
        "context": BASE,
        "sealed": sealed.hex(),
        "opens_under": KEY.hex(),
        "plaintext": plaintexts[0].hex(),
        "refused_under": other.hex(),
        "plaintext_without_commitment": plaintexts[1].hex(),
    }


def lines(name, entries):
    body = ",\n".join("    " + json.dumps(entry, ensure_ascii=False) for entry in entries)
    return f'  "{name}": [\n{body}\n  ]'


def main():
    about = "Sealed format, version 1. Bytes are hexadecimal. Written by make_sealed_v1.py; expect names the error."
    sections = [
        f'  "about": {json.dumps(about)}',
        lines("good", GOOD),
        lines("bad", [*swapped(), *damaged()]),
        lines("truncated", truncated()),
        f'  "two_keys": {json.dumps(two_keys())}',
    ]
    print("{\n" + ",\n".join(sections) + "\n}")


if __name__ == "__main__":
    main()
