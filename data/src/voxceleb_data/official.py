"""The names, checksums and sizes under which VoxCeleb's archives and lists are published."""

from dataclasses import dataclass
from types import MappingProxyType

from voxsrc.trial_lists import TRIAL_LISTS, OfficialList


@dataclass(frozen=True)
class OfficialFile:
    """A file as published: its name and the MD5 of its bytes."""

    name: str
    md5: str


@dataclass(frozen=True)
class Archive:
    """One zip of the corpus, published whole or cut into parts.

    Attributes:
        name: How the commands call it.
        parts: The published files, in the order in which they make the zip.
        joined: The zip itself where the parts are several; some keep only that in their bucket.
        speakers: Number of speakers inside, as published.
        utterances: Number of utterances inside, as published.
    """

    name: str
    parts: tuple[OfficialFile, ...]
    joined: OfficialFile | None
    speakers: int
    utterances: int

    def files(self, *, joined: bool) -> tuple[OfficialFile, ...]:
        """What to fetch: the parts, or with `joined` the one zip."""
        return (self.joined,) if joined and self.joined else self.parts


# MD5s of parts and of the joined zips: lists/fileparts.txt and lists/files.txt of clovaai/voxceleb_trainer,
# and, kept on their own, dataset/voxceleb/voxceleb1.py and voxceleb2.py of PaddlePaddle/PaddleSpeech;
# wenet-e2e/wespeaker's examples/voxceleb/v2/local/download_data.sh has the same for the joined zips and
# vox1_test_wav.zip. They agree in every entry.
_VOX1_DEV_PARTS = {
    "vox1_dev_wav_partaa": "e395d020928bc15670b570a21695ed96",
    "vox1_dev_wav_partab": "bbfaaccefab65d82b21903e81a8a8020",
    "vox1_dev_wav_partac": "017d579a2a96a077f40042ec33e51512",
    "vox1_dev_wav_partad": "7bb1e9f70fddc7a678fa998ea8b3ba19",
}
_VOX2_DEV_PARTS = {
    "vox2_dev_aac_partaa": "da070494c573e5c0564b1d11c3b20577",
    "vox2_dev_aac_partab": "17fe6dab2b32b48abaf1676429cdd06f",
    "vox2_dev_aac_partac": "1de58e086c5edf63625af1cb6d831528",
    "vox2_dev_aac_partad": "5a043eb03e15c5a918ee6a52aad477f9",
    "vox2_dev_aac_partae": "cea401b624983e2d0b2a87fb5d59aa60",
    "vox2_dev_aac_partaf": "fc886d9ba90ab88e7880ee98effd6ae9",
    "vox2_dev_aac_partag": "d160ecc3f6ee3eed54d55349531cb42e",
    "vox2_dev_aac_partah": "6b84a81b9af72a9d9eecbb3b1f602e65",
}


def _files(md5s: dict[str, str]) -> tuple[OfficialFile, ...]:
    return tuple(OfficialFile(name, md5) for name, md5 in md5s.items())


# Speakers and utterances: the tables on VoxCeleb's own pages (vox1.html, vox2.html).
ARCHIVES = MappingProxyType(
    {
        archive.name: archive
        for archive in (
            Archive(
                "vox1-dev",
                _files(_VOX1_DEV_PARTS),
                OfficialFile("vox1_dev_wav.zip", "ae63e55b951748cc486645f532ba230b"),
                speakers=1211,
                utterances=148_642,
            ),
            Archive(
                "vox1-test",
                (OfficialFile("vox1_test_wav.zip", "185fdc63c3c739954633d50379a3d102"),),
                None,
                speakers=40,
                utterances=4_874,
            ),
            Archive(
                "vox2-dev",
                _files(_VOX2_DEV_PARTS),
                OfficialFile("vox2_dev_aac.zip", "bbc063c46078a602ca71605645c2a402"),
                speakers=5994,
                utterances=1_092_009,
            ),
            Archive(
                "vox2-test",
                (OfficialFile("vox2_test_aac.zip", "0d2b3ea430a821c33263b5ea37ede312"),),
                None,
                speakers=118,
                utterances=36_237,
            ),
        )
    }
)

# Where the lists are public; the second is tried if the first does not have the file.
LIST_BASE_URLS = (
    "https://mm.kaist.ac.kr/datasets/voxceleb/meta/",
    "https://www.robots.ox.ac.uk/~vgg/data/voxceleb/meta/",
)

# For VoxCeleb2's train_list.txt nobody is known to publish a checksum.
LISTS = MappingProxyType(
    {
        **TRIAL_LISTS,
        "vox2-dev-utterances": OfficialList(
            "vox2-dev-utterances",
            "train_list.txt",
            "vox2-dev-utterances.txt",
            "utterances",
            1_092_009,
            note="all utterances of VoxCeleb2 dev; it names .wav where the archive has .m4a",
        ),
    }
)
