"""The operator's rights: no more than it uses, and told by the same names as the code uses."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.unit.chart_rendering import EVERYTHING_ON, find, render
from tests.unit.children.goldens import all_children
from tunewright import core
from tunewright.cluster import resources

Rule = dict[str, list[str]]


def rules(kind: str, name: str = "tunewright", values: tuple[str, ...] = ()) -> list[Rule]:
    found: list[Rule] = find(render(values), kind, name)["rules"]
    return found


def granted(values: tuple[str, ...] = ()) -> dict[str, set[str]]:
    """Resource to verbs that the operator has in every namespace."""
    verbs: dict[str, set[str]] = {}
    for rule in rules("ClusterRole", values=values):
        for resource in rule["resources"]:
            verbs.setdefault(resource, set()).update(rule["verbs"])
    return verbs


@pytest.mark.parametrize("values", [(), EVERYTHING_ON], ids=["defaults", "on"])
def test_no_wildcard_anywhere(values: tuple[str, ...]) -> None:
    roles = [m for m in render(values) if m["kind"] in ("ClusterRole", "Role")]
    assert roles
    for role in roles:
        for rule in role["rules"]:
            words = [word for values_of_field in rule.values() for word in values_of_field]
            assert not [word for word in words if "*" in word], role["metadata"]["name"]


# What cluster/ and server/ call, by resource. A right that is added here needs a call that uses it; one that
# is missing makes the cluster tests fail, which run under these rights.
USED = {
    "finetunejobs": "get list watch patch delete",
    "finetunejobs/status": "patch",
    "finetunejobs/finalizers": "update",
    "jobs": "get list watch create delete",
    "pods": "list watch delete",
    "services": "get list watch create",
    "configmaps": "get list watch create",
    "nodes": "list watch",
    "persistentvolumeclaims": "get",
    "secrets": "get",
    "tokenreviews": "create",
    "events": "create patch",
}


def test_it_has_the_rights_that_it_uses_and_no_other() -> None:
    assert granted() == {resource: set(verbs.split()) for resource, verbs in USED.items()}


def calls_in_core(name: str) -> Iterator[ast.Call]:
    """Every call of ``name`` in the decisions' source."""
    for path in sorted(Path(core.__file__).parent.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == name:
                yield node


def test_it_may_delete_what_decisions_delete_and_jobs_past_their_time_to_live() -> None:
    # literal_eval refuses a resource that isn't spelled out where the Deletion is made.
    deleted = {ast.literal_eval(call.args[0]) for call in calls_in_core("Deletion")}
    assert deleted, "nothing found: this test reads the source wrongly"
    may_delete = {resource for resource, verbs in granted().items() if "delete" in verbs}
    assert may_delete == deleted | {"finetunejobs"}


def test_it_may_create_what_is_made_of_children_and_no_other_object_of_a_user() -> None:
    made = {child["kind"].lower() + "s" for child in all_children().values()}
    requests_and_records = {"tokenreviews", "events"}
    may_create = {resource for resource, verbs in granted().items() if "create" in verbs}
    assert may_create == made | requests_and_records


def test_rights_go_with_the_features_that_need_them() -> None:
    assert granted().keys() - granted(("rbac.checkSecrets=false",)).keys() == {"secrets"}
    assert granted().keys() - granted(("progress.enabled=false",)).keys() == {"tokenreviews"}


def test_nothing_that_would_let_it_become_someone_else() -> None:
    """No pods made, no exec, no roles, no service accounts, no impersonation: a stolen token gains little."""
    assert "create" not in granted()["pods"]
    escalating = {
        "pods/exec",
        "pods/attach",
        "serviceaccounts",
        "serviceaccounts/token",
        "roles",
        "rolebindings",
    }
    escalating |= {"clusterroles", "clusterrolebindings", "users", "groups", "nodes/proxy"}
    assert not escalating & set(granted())
    verbs = set().union(*granted().values())
    assert not verbs & {"impersonate", "bind", "escalate", "deletecollection"}


def test_its_own_namespace_role_is_bound_to_names() -> None:
    for rule in rules("Role"):
        if rule["verbs"] != ["create"]:
            assert rule["resourceNames"], rule


def test_rules_name_resources_that_the_client_knows() -> None:
    known = {(r.group, r.plural) for r in resources.ALL}
    for rule in rules("ClusterRole") + rules("Role"):
        for group in rule["apiGroups"]:
            for resource in rule["resources"]:
                assert (group, resource.split("/")[0]) in known


def test_every_resource_of_the_client_has_a_rule() -> None:
    named = {
        (group, resource)
        for rule in rules("ClusterRole") + rules("Role")
        for group in rule["apiGroups"]
        for resource in rule["resources"]
    }
    assert {(r.group, r.plural) for r in resources.ALL} <= named


def test_users_roles_aggregate() -> None:
    labels: dict[str, Any] = find(render(), "ClusterRole", "tunewright-view")["metadata"]["labels"]
    assert labels["rbac.authorization.k8s.io/aggregate-to-view"] == "true"
    view = rules("ClusterRole", "tunewright-view")
    assert {verb for rule in view for verb in rule["verbs"]} == {"get", "list", "watch"}
    edit = rules("ClusterRole", "tunewright-edit")
    assert not any("finetunejobs/status" in rule["resources"] for rule in edit)
