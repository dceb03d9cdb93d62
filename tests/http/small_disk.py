"""A daemon on a disk so small that it really runs full.

Three ways, the best one that this machine and user allow:
  ext4     a loop-mounted file (root)
  tmpfs    in a mount namespace of the daemon's own (root, or anyone with user namespaces)
  preload  a limit inside the daemon's C library calls (containers that allow neither); the posix
           io backend, since a ring's writes do not pass there
"""

import os
import subprocess
from pathlib import Path

from daemon import Daemon

SIZE_MIB = 48


class SmallDisk:
    def __init__(self, scratch):
        self.mount = Path(scratch)
        self.mount.mkdir(parents=True)
        self.image = self.mount.with_suffix(".img")
        self.kind = self._mount_ext4() or self._try_tmpfs() or self._preload()

    def _run(self, *command):
        return subprocess.run(command, capture_output=True).returncode == 0

    def _mount_ext4(self):
        if os.geteuid() != 0:
            return None
        with open(self.image, "wb") as f:
            f.truncate(SIZE_MIB * 2**20)
        made = self._run("mkfs.ext4", "-q", "-F", "-m", "0", "-J", "size=4", str(self.image))
        return "ext4" if made and self._run("mount", "-o", "loop", self.image, self.mount) else None

    def _namespace(self):
        user = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
        script = f'mount -t tmpfs -o size={SIZE_MIB}m none "$0" && exec "$@"'
        return ["unshare", *user, "--mount", "sh", "-c", script, str(self.mount)]

    def _try_tmpfs(self):
        return "tmpfs" if self._run(*self._namespace(), "true") else None

    def _preload(self):
        source = Path(__file__).with_name("small_disk_preload.c")
        self.library = self.mount.with_suffix(".so")
        command = ["cc", "-shared", "-fPIC", "-o", str(self.library), str(source), "-ldl"]
        subprocess.run(command, check=True)
        return "preload"

    def daemon(self, root, env):
        if self.kind == "ext4":
            return Daemon(root, env=env, data=self.mount / "data")
        if self.kind == "tmpfs":
            return Daemon(root, env=env, data=self.mount / "data", wrapper=self._namespace())
        limited = {
            "LD_PRELOAD": str(self.library),
            "SMALL_DISK": f"{self.mount}:{SIZE_MIB * 2**20}",
            "LOADSTONE_IO": "posix",
        }
        return Daemon(root, env={**env, **limited}, data=self.mount / "data")

    def remove(self):
        if self.kind == "ext4":
            self._run("umount", "-l", str(self.mount))
        self.image.unlink(missing_ok=True)
