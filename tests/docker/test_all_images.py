"""What holds for every image."""

import re
from typing import Any

import pytest

pytestmark = pytest.mark.docker


@pytest.mark.parametrize("confined_image", ["confined", "confined_train", "confined_evaluate"])
def test_the_image_has_no_secret_and_nothing_of_the_workplace(
    docker: Any, confined_image: str, request: pytest.FixtureRequest
) -> None:
    container = request.getfixturevalue(confined_image)({})
    found = container.python(
        """
import os, re
names = r"cloud\\.env|.*\\.(key|p12)|id_(rsa|ed25519)|\\.(git|netrc|pypirc)|pip\\.conf|.*credentials\\.json"
elsewhere = ("/proc", "/sys")
for folder, folders, files in os.walk("/"):
    folders[:] = [name for name in folders if os.path.join(folder, name) not in elsewhere]
    for name in [*folders, *files]:
        path = os.path.join(folder, name)
        if re.fullmatch(names, name) or name.endswith(".pem") and b"PRIVATE" in open(path, "rb").read():
            print(path)
"""
    )
    assert found == ""
    configuration = docker("image", "inspect", "--format", "{{json .Config}}", container.image)
    history = docker("image", "history", "--no-trunc", "--format", "{{.CreatedBy}}", container.image)
    assert not re.search(r"token|secret|passw|api_?key|private_key", configuration + history, re.IGNORECASE)
