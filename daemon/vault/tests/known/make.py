"""Writes known.json: streams, a value, a wrapped key, derived keys and shares, computed without Moat.

Needs Python's `cryptography`. The formats are those that the pages of daemon/vault describe; none of Moat's code is
used. usage: make.py > known.json
"""
import hashlib
import hmac
import json

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF, HKDFExpand

CHUNK = 65536
DIGITS = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
NAME = b"run/7"


def bytes_from(label, count):
    return hashlib.shake_128(label.encode()).digest(count)


def message_key(secret, salt, info):
    return AESGCM(HKDF(SHA256(), 32, salt, info).derive(secret))


def stream(key, salt, plain):
    head = b"moatseal" + bytes([1, 16, 0, 0, 0, 0, 0, 0])
    aead = message_key(key, salt, b"moat stream\0" + head + NAME)
    pieces = [plain[at:at + CHUNK] for at in range(0, len(plain), CHUNK)] or [b""]
    sealed = head + salt
    for number, piece in enumerate(pieces):
        nonce = number.to_bytes(11, "big") + bytes([number == len(pieces) - 1])
        sealed += aead.encrypt(nonce, piece, None)
    return sealed


def small(secret, salt, info, plain):
    return salt + message_key(secret, salt, info).encrypt(bytes(12), plain, None)


def times(a, b):
    """The product in GF(256), by powers of the generator 3."""
    return EXP[(LOG[a] + LOG[b]) % 255] if a and b else 0


EXP, LOG, power = [], {}, 1
for exponent in range(255):
    EXP.append(power)
    LOG[power] = exponent
    doubled = power << 1 ^ (0x11b if power & 0x80 else 0)
    power ^= doubled


def share(secret, needed, of, place, label="coefficient"):
    shared = secret + hashlib.sha256(b"moat shared secret\0" + secret).digest()[:4]
    values = bytearray(shared)
    at = place
    for degree in range(1, needed):
        for index, coefficient in enumerate(bytes_from(f"{label} {degree}", len(shared))):
            values[index] ^= times(coefficient, at)
        at = times(at, place)
    body = bytes_from("set", 4) + bytes([needed, of, place]) + values
    packed = body + hashlib.sha256(b"MOAT1" + body).digest()[:2]
    groups = ["MOAT1"]
    for group in range(9):
        word = int.from_bytes(packed[5 * group:5 * group + 5], "big")
        digits = [word >> shift & 31 for shift in range(35, -1, -5)]
        check = hashlib.sha256(bytes([group] + digits)).digest()[0] & 31
        groups.append("".join(DIGITS[digit] for digit in digits + [check]))
    return " ".join(groups)


def main():
    key, root = bytes_from("key", 32), bytes_from("root", 32)
    streams = []
    for length in [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK, 200_000]:
        salt = bytes_from(f"salt {length}", 32)
        sealed = stream(key, salt, bytes(index % 251 for index in range(length)))
        streams.append({"length": length, "salt": salt.hex(), "sealed_sha256": hashlib.sha256(sealed).hexdigest()})
    value = bytes_from("value", 99)
    head = bytes([1]) + (3).to_bytes(4, "little")
    derived = HKDFExpand(SHA256(), 32, b"moat derived key\0index").derive(root)
    look_up = HKDFExpand(SHA256(), 32, b"moat look-up\0path").derive(root)
    print(json.dumps({
        "key": key.hex(),
        "root": root.hex(),
        "object": NAME.decode(),
        "streams": streams,
        "value": {
            "plain": value.hex(),
            "sealed": (b"\1" + small(key, bytes_from("value salt", 16), b"moat value\0\1" + NAME, value)).hex(),
        },
        "wrapped": {
            "generation": 3,
            "bytes": (head + small(root, bytes_from("wrap salt", 16), b"moat data key\0" + head + NAME, key)).hex(),
        },
        "derived": {"index": derived.hex()},
        "look_up": {"path": hmac.new(look_up, b"/srv/a", "sha256").hexdigest()[:32]},
        "shares": [share(key, 3, 5, place) for place in (1, 2, 3, 4, 5)],
        # Passes every check of its own, and belongs to another secret.
        "false_share": share(root, 3, 5, 3, "false"),
    }, indent=1))


main()
