"""A certificate of its own for each test that speaks TLS: self-signed, for 127.0.0.1 and localhost."""

import subprocess
from pathlib import Path


class Certificate:
    def __init__(self, folder: Path, name: str = "server"):
        self.cert = folder / f"{name}.crt"
        self.key = folder / f"{name}.key"
        self.renew()

    def renew(self) -> None:
        command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
        command += ["-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
        command += ["-keyout", str(self.key), "-out", str(self.cert)]
        subprocess.run(command, check=True, capture_output=True)

    def flags(self) -> list[str]:
        return ["--tls-cert", str(self.cert), "--tls-key", str(self.key)]
