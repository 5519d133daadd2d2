"""The package's top level."""

import subprocess
import sys


def test_importing_the_package_imports_neither_torch_nor_speechbrain():
    script = (
        "import sys, speechbrain_clsp, speechbrain_clsp.cli.main\n"
        "heavy = {'torch', 'speechbrain', 'transformers', 'numpy'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "assert {'CLSP', 'StyleReward', '__version__'} == set(speechbrain_clsp.__all__)\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)


def test_all_public_names_of_the_rooms_that_open_models_can_be_imported():
    from speechbrain_clsp import inference, pretrained

    for room in (inference, pretrained):
        for name in room.__all__:
            assert getattr(room, name).__name__ == name
