"""Quarry under test: one process on a fresh data directory and a free port."""

from cloud import Cloud
from system import Failed, Server, disk_bytes


class Quarry:
    name = "quarry"

    def __init__(self, binary, directory, options=()):
        """Starts `binary` with its data in `directory`/data; `options` are further arguments."""
        self.directory = directory
        self.data = directory / "data"
        self._server = Server("quarry", [binary, "serve", "--data-dir", self.data, "--listen",
                                         "127.0.0.1:0", *options], directory)
        self.clouds_yaml = self.data / "clouds.yaml"
        endpoint = self.data / "endpoint"
        try:
            self._server.wait_until(lambda: endpoint.exists()
                                    and endpoint.read_text().strip() and self.clouds_yaml.exists())
            self.cloud = Cloud(self.clouds_yaml)
        except BaseException:
            self._server.stop()
            raise
        self.endpoint = endpoint.read_text().strip()

    def pid(self):
        return self._server.pid

    def cpu_seconds(self):
        return self._server.cpu_seconds()

    def reset_peak(self):
        self._server.reset_peak()

    def peak_memory(self):
        return self._server.peak_memory()

    def stored_bytes(self):
        return disk_bytes(self.data)

    def stop(self):
        if not self._server.alive():
            raise Failed(f"quarry had ended by itself:\n{self._server.last_lines()}")
        code = self._server.stop()
        if code != 0:
            raise Failed(f"quarry ended with {code}:\n{self._server.last_lines()}")
