"""`headgate run` with another worker class: FILE STATE_DIR WORKER_CLASS [WORKERS] [watch]."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from headgate.config import load
from headgate.control.launch import Launch, Outline, exec_supervisor
from headgate.control.template import fork_template

if __name__ == "__main__":
    template = fork_template()
    file, state_dir, worker_class, *rest = sys.argv[1:]
    loaded = load(Path(file))
    workers = int(rest[0]) if rest and rest[0] != "-" else None
    exec_supervisor(
        Launch(
            config_file=file,
            state_dir=state_dir,
            outline=Outline.of(loaded, workers),
            document=json.dumps(loaded.document).encode(),
            workers=workers,
            watch=True if "watch" in rest else None,
            worker_class=worker_class,
            template=template,
        ).to_memfd()
    )
