"""A local stand-in for the HuggingFace hub, which can also pretend faults.

It has repositories of models with branches, tags and commits. As on the hub, git stores
small files, and LFS stores weights on another host.
"""

import base64
import hashlib
import http.server
import json
import re
import threading
from contextlib import contextmanager
from urllib.parse import unquote, urlsplit

import yaml

#: Permissions of each token.
TOKENS = {"writer": {"read", "write"}, "reader": {"read"}}


class Repository:
    """A repository: files by commit, and commits by branch or tag."""

    def __init__(self, private=False):
        self.private = private
        self.refs = {}
        self.commits = {}  # sha: {path: content}
        self.messages = []
        self.commit({}, "main", "initial commit")

    def commit(self, files, branch, message="commit"):
        """Add files to a branch; return the sha of the new commit."""
        files = {**self.files(branch), **files}
        self.messages.append(message)
        sha = hashlib.sha1(repr((len(self.commits), branch)).encode()).hexdigest()
        self.commits[sha] = files
        self.refs[branch] = sha
        return sha

    def resolve(self, revision):
        """The sha of a branch, a tag or a commit; None if there is none."""
        return self.refs.get(revision, revision if revision in self.commits else None)

    def files(self, revision):
        return self.commits.get(self.resolve(revision), {})


class HubStandIn(http.server.ThreadingHTTPServer):
    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.storage_url = f"http://localhost:{self.server_port}/storage"
        self.repositories = {}
        self.storage = {}  # the LFS storage: {sha256: content}
        self.requests = []  # (method, path, Range header)
        self.cuts = []  # bytes after which each of the next downloads of weights stops

    def add(self, repo_id, files, branch="main", private=False):
        """Commit files; return the sha of the commit."""
        repository = self.repositories.setdefault(repo_id, Repository(private))
        self.storage |= {sha256(c): c for p, c in files.items() if is_large(p)}
        return repository.commit(files, branch)

    def downloads(self):
        """The path and the Range header of each download."""
        return [
            (path, range_header)
            for method, path, range_header in self.requests
            if method == "GET" and ("/resolve/" in path or "/storage/" in path)
        ]

    @contextmanager
    def running(self):
        thread = threading.Thread(target=self.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield self
        finally:
            self.go_away()
            thread.join()

    def go_away(self):
        """Refuse connections from now on."""
        self.shutdown()
        self.server_close()


def sha256(content):
    return hashlib.sha256(content).hexdigest()


def git_sha(content):
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def is_large(path):
    return path.endswith(".safetensors")


class HubError(Exception):
    def __init__(self, status, code="", message=""):
        self.status = status
        self.headers = {"X-Error-Code": code, "X-Error-Message": message}


class Handler(http.server.BaseHTTPRequestHandler):
    #: Paths of the interface, and the methods below that answer them.
    ROUTES = [
        ("GET", r"/api/models/(?P<repo_id>[^/]+/[^/]+)", "info"),
        ("GET", r"/api/models/(?P<repo_id>.+)/revision/(?P<revision>.+)", "info"),
        ("GET", r"/api/models/(?P<repo_id>.+)/tree/(?P<revision>.+)", "tree"),
        ("GET", r"/(?P<repo_id>.+)/resolve/(?P<revision>[^/]+)/(?P<path>.+)", "file"),
        ("GET", r"/storage/(?P<oid>\w+)", "stored"),
        ("POST", r"/api/repos/create", "create"),
        ("POST", r"/api/validate-yaml", "validate"),
        ("POST", r"/api/models/(?P<repo_id>.+)/branch/(?P<branch>.+)", "branch"),
        (
            "POST",
            r"/api/models/(?P<repo_id>.+)/preupload/(?P<revision>.+)",
            "preupload",
        ),
        ("POST", r"/api/models/(?P<repo_id>.+)/commit/(?P<revision>.+)", "commit"),
        ("POST", r"/(?P<repo_id>.+)\.git/info/lfs/objects/batch", "lfs_batch"),
        ("PUT", r"/storage/(?P<oid>\w+)", "store"),
    ]

    def do_GET(self):
        path = urlsplit(self.path).path
        self.server.requests.append((self.command, path, self.headers["Range"]))
        self.body = self.rfile.read(int(self.headers["Content-Length"] or 0))
        method = "GET" if self.command == "HEAD" else self.command
        try:
            for its_method, pattern, name in self.ROUTES:
                match = re.fullmatch(pattern, path)
                if match and method == its_method:
                    values = {k: unquote(v) for k, v in match.groupdict().items()}
                    return getattr(self, name)(**values)
            raise HubError(404)
        except HubError as error:
            self.answer(b"{}", error.status, error.headers)

    do_HEAD = do_POST = do_PUT = do_GET

    def log_message(self, *args):
        pass

    def answer(self, content, status=200, headers=None):
        if not isinstance(content, bytes):
            content = json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Length": len(content), **(headers or {})}.items():
            self.send_header(name, str(value))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def permissions(self):
        token = (self.headers["Authorization"] or "").removeprefix("Bearer ")
        return TOKENS.get(token, set())

    def repository(self, repo_id):
        """The repository, if the client may read it."""
        repository = self.server.repositories.get(repo_id)
        if repository is None:
            raise HubError(404, "RepoNotFound", "Repository not found")
        if repository.private and "read" not in self.permissions():
            raise HubError(401, "RepoNotFound", "Invalid username or password.")
        return repository

    def commit_of(self, repository, revision):
        sha = repository.resolve(revision)
        if sha is None:
            raise HubError(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return sha

    def check_may_write(self):
        if not self.permissions():
            raise HubError(401, message="Invalid username or password.")
        if "write" not in self.permissions():
            raise HubError(403, message="You have read access but not the required")

    # --- download ---

    def info(self, repo_id, revision="main"):
        repository = self.repository(repo_id)
        sha = self.commit_of(repository, revision)
        names = [{"rfilename": path} for path in repository.commits[sha]]
        self.answer({"id": repo_id, "sha": sha, "tags": [], "siblings": names})

    def tree(self, repo_id, revision):
        repository = self.repository(repo_id)
        files = repository.commits[self.commit_of(repository, revision)]
        entries = []
        for path, content in files.items():
            size, oid = len(content), git_sha(content)
            entries.append({"type": "file", "path": path, "size": size, "oid": oid})
            if is_large(path):
                lfs = {"oid": sha256(content), "size": size, "pointerSize": 134}
                entries[-1]["lfs"] = lfs
        self.answer(entries)

    def file(self, repo_id, revision, path):
        repository = self.repository(repo_id)
        sha = self.commit_of(repository, revision)
        headers = {"X-Repo-Commit": sha}
        content = repository.commits[sha].get(path)
        if content is None:
            raise HubError(404, "EntryNotFound", "Entry not found")
        if not is_large(path):
            return self.answer(
                content, 200, {**headers, "ETag": f'"{git_sha(content)}"'}
            )
        headers["X-Linked-ETag"] = f'"{sha256(content)}"'
        headers["X-Linked-Size"] = len(content)
        headers["Location"] = f"{self.server.storage_url}/{sha256(content)}"
        self.answer(b"", 302, headers)

    def stored(self, oid):
        content = self.server.storage[oid]
        start = 0
        if self.headers["Range"]:
            start = int(re.match(r"bytes=(\d+)-", self.headers["Range"])[1])
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        end = start + self.server.cuts.pop(0) if self.server.cuts else None
        self.wfile.write(content[start:end])

    # --- upload ---

    def create(self):
        self.check_may_write()
        wanted = json.loads(self.body)
        repo_id = f"{wanted['organization']}/{wanted['name']}"
        url = {"url": f"{self.server.url}/{repo_id}"}
        if repo_id in self.server.repositories:
            return self.answer(url, 409)
        is_private = wanted.get("visibility") == "private"
        self.server.repositories[repo_id] = Repository(is_private)
        self.answer(url)

    def branch(self, repo_id, branch):
        self.check_may_write()
        repository = self.repository(repo_id)
        if branch in repository.refs:
            raise HubError(409)
        repository.refs[branch] = repository.refs["main"]
        self.answer({}, 201)

    def validate(self):
        content = json.loads(self.body)["content"]
        metadata = yaml.safe_load(content.split("---")[1])
        if not isinstance(metadata, dict):
            errors = [{"message": "metadata must be a mapping"}]
            return self.answer({"errors": errors, "warnings": []}, 400)
        self.answer({"errors": [], "warnings": []})

    def preupload(self, repo_id, revision):
        self.check_may_write()
        known = self.repository(repo_id).files(revision)

        def plan(path):
            mode, hash_of = ("lfs", sha256) if is_large(path) else ("regular", git_sha)
            oid = hash_of(known[path]) if path in known else None
            return {"path": path, "uploadMode": mode, "shouldIgnore": False, "oid": oid}

        paths = [file["path"] for file in json.loads(self.body)["files"]]
        self.answer({"files": [plan(path) for path in paths]})

    def lfs_batch(self, repo_id):
        self.check_may_write()
        objects = []
        for wanted in json.loads(self.body)["objects"]:
            entry = {"oid": wanted["oid"], "size": wanted["size"]}
            if wanted["oid"] not in self.server.storage:
                href = f"{self.server.storage_url}/{wanted['oid']}"
                entry["actions"] = {"upload": {"href": href}}
            objects.append(entry)
        self.answer({"transfer": "basic", "objects": objects})

    def store(self, oid):
        if sha256(self.body) != oid:
            raise HubError(400)
        self.server.storage[oid] = self.body
        self.answer({})

    def commit(self, repo_id, revision):
        self.check_may_write()
        repository = self.repository(repo_id)
        self.commit_of(repository, revision)
        header, *operations = map(json.loads, self.body.splitlines())
        files = {}
        for operation in operations:
            value = operation["value"]
            if operation["key"] == "lfsFile":
                files[value["path"]] = self.server.storage[value["oid"]]
            else:
                files[value["path"]] = base64.b64decode(value["content"])
        sha = repository.commit(files, revision, header["value"]["summary"])
        url = f"{self.server.url}/{repo_id}/commit/{sha}"
        self.answer({"success": True, "commitOid": sha, "commitUrl": url})
