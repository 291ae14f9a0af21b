"""That the simulated day is what deploy/README.md says, and simulates what deploy/kubernetes says: needs Python alone.

    cd deploy && python3 -m unittest test_scaling.py
"""

import contextlib
import io
import pathlib
import re
import sys
import unittest
from unittest import mock

import autoscale

HERE = pathlib.Path(__file__).resolve().parent


def simulated(*flags: str) -> str:
    told = io.StringIO()
    with mock.patch.object(sys, "argv", ["autoscale.py", *flags]), contextlib.redirect_stdout(told):
        autoscale.main()
    return told.getvalue()


def numbers(text: str) -> list[float]:
    return [float(number) for number in re.findall(r"\d+(?:\.\d+)?", text.replace(",", ""))]


class Day(unittest.TestCase):
    def test_the_table_says_what_the_simulation_gives(self) -> None:
        lines = (HERE / "README.md").read_text().splitlines()
        rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith(("| scaled", "| always"))]
        self.assertGreater(len(rows), 5)
        for replicas, spread, hours, waited, refused in rows:
            flags = []
            if "picker" in spread:
                flags += ["--balance", "least"]
            if "180 s" in replicas:
                flags += ["--start-s", "180"]
            if replicas.startswith("always"):
                flags += ["--fixed", replicas.split()[1]]
            with self.subTest(replicas, spread=spread):
                counts, first, _ = simulated(*flags).splitlines()
                _, got_refused, got_most, got_hours = numbers(counts)
                used = re.search(r"up to (\d+) used", replicas)
                self.assertEqual(got_most, float(used[1]) if used else numbers(replicas)[0])
                self.assertEqual(round(got_hours), numbers(hours)[0])
                self.assertEqual(got_refused, numbers(refused)[0])
                median, _, of_95, _, of_99 = numbers(first)  # each percentile behind its own number
                for value, said in zip((median, of_95, of_99), numbers(waited), strict=True):
                    self.assertAlmostEqual(value, said, delta=0.5)

    def test_the_rule_is_the_one_that_keda_is_given(self) -> None:
        scaling = (HERE / "kubernetes/base/scaling.yaml").read_text()
        told = io.StringIO()
        with mock.patch.object(sys, "argv", ["autoscale.py", "--help"]), contextlib.redirect_stdout(told), self.assertRaises(SystemExit):
            autoscale.main()
        text = " ".join(told.getvalue().split())
        for field, flag in [
            ("threshold", "--threshold"),
            ("minReplicaCount", "--least"),
            ("maxReplicaCount", "--most"),
            ("pollingInterval", "--sync-s"),
        ]:
            given = float(re.search(rf'{field}: "?(\d+)', scaling)[1])
            default = float(re.search(rf"{flag} [A-Z_]+ [^()]*\(([\d.]+)\)", text)[1])
            self.assertEqual(given, default, field)
        down = re.search(r"scaleDown:\s+stabilizationWindowSeconds: (\d+)", scaling)[1]
        self.assertIn(f"stabilisation window of scaling down ({down})", text)


if __name__ == "__main__":
    unittest.main()
