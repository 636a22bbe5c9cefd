"""A cloud as its clients see it: log in, find the services in the catalog, call them."""

import http.client
import json
import urllib.parse

from system import Failed


class Cloud:
    """One project's admin on one cloud, described by a clouds.yaml with a single cloud."""

    def __init__(self, clouds_yaml):
        import yaml  # late: a package that install() may have brought a moment ago
        clouds = yaml.safe_load(clouds_yaml.read_text())["clouds"]
        (self.name, entry), *_ = clouds.items()
        self.auth = entry["auth"]
        self.region = entry.get("region_name", "RegionOne")
        self.identity = self.auth["auth_url"].rstrip("/")
        self.token, self._catalog = None, []
        self.log_in()

    def login_body(self):
        user = {"name": self.auth["username"], "password": self.auth["password"],
                "domain": {"name": self.auth.get("user_domain_name", "Default")}}
        scope = {"project": {"name": self.auth["project_name"],
                             "domain": {"name": self.auth.get("project_domain_name", "Default")}}}
        return {"auth": {"identity": {"methods": ["password"], "password": {"user": user}},
                         "scope": scope}}

    def log_in(self):
        headers, body = self.call("POST", f"{self.identity}/auth/tokens", self.login_body(),
                                  token=False)
        self.token = headers["X-Subject-Token"]
        self._catalog = body["token"]["catalog"]

    def endpoint(self, service_type):
        for service in self._catalog:
            if service["type"] == service_type:
                for endpoint in service["endpoints"]:
                    if endpoint["interface"] == "public":
                        return endpoint["url"].rstrip("/")
        raise Failed(f"the catalog of {self.name} has no public {service_type} endpoint")

    @property
    def image(self):
        """The base address of the Image API's version 2."""
        url = self.endpoint("image")
        return url if url.endswith("/v2") else f"{url}/v2"

    def call(self, method, url, body=None, token=True, headers=None):
        """One JSON request on a connection of its own; (headers, decoded body) or Failed."""
        parts = urllib.parse.urlsplit(url)
        sent = {"Accept": "application/json", **(headers or {})}
        if token:
            sent["X-Auth-Token"] = self.token
        data = body
        if isinstance(body, (dict, list)):
            data = json.dumps(body)
            sent.setdefault("Content-Type", "application/json")
        connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=120)
        try:
            path = parts.path + (f"?{parts.query}" if parts.query else "")
            connection.request(method, path, data, sent)
            reply = connection.getresponse()
            raw = reply.read()
        except OSError as error:
            raise Failed(f"{method} {url}: {error}") from error
        finally:
            connection.close()
        if reply.status >= 400:
            raise Failed(f"{method} {url}: {reply.status} {raw[:300].decode(errors='replace')}")
        return reply.headers, json.loads(raw) if raw.strip() else None

    # ---- images

    def create_image(self, name, disk_format="raw"):
        _, image = self.call("POST", f"{self.image}/images",
                             {"name": name, "disk_format": disk_format,
                              "container_format": "bare"})
        return image["id"]

    def file_url(self, image):
        return f"{self.image}/images/{image}/file"

    def delete_image(self, image):
        self.call("DELETE", f"{self.image}/images/{image}")

    def show_image(self, image):
        return self.call("GET", f"{self.image}/images/{image}")[1]


def write_clouds_yaml(path, name, auth_url, password):
    """The clouds.yaml of a service that we started (JSON is YAML)."""
    path.touch(0o600)
    path.write_text(json.dumps({"clouds": {name: {
        "auth": {"auth_url": auth_url, "username": "admin", "password": password,
                 "project_name": "admin", "user_domain_name": "Default",
                 "project_domain_name": "Default"},
        "region_name": "RegionOne", "identity_api_version": 3}}}, indent=1))
    return path
