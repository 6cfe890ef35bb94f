"""Drives replication by harborapi, a client made for Harbor: what a script of a user of Harbor does. Prints what it saw as JSON."""

import asyncio
import json
import os
import sys

from harborapi import HarborAsyncClient
from harborapi.exceptions import HarborAPIException
from harborapi.models import Registry, RegistryCredential, ReplicationFilter, ReplicationPolicy, ReplicationTrigger

FINAL = {"Succeed", "Failed", "Stopped"}


def id_of(location: str) -> int:
    return int(location.rsplit("/", 1)[-1])


async def main(source: str) -> dict:
    client = HarborAsyncClient(
        url=os.environ["HARBOR_URL"], username=os.environ["HARBOR_USERNAME"], secret=os.environ["HARBOR_PASSWORD"]
    )
    seen: dict = {
        "ping": await client.ping(),
        "auth_mode": str((await client.get_system_info()).auth_mode),
        "user": (await client.get_current_user()).username,
    }
    registry = id_of(
        await client.create_registry(Registry(name="harborapi-source", type="docker-registry", url=source, insecure=True))
    )
    seen["registry"] = (await client.get_registry(registry)).status
    policy = ReplicationPolicy(
        name="harborapi-pull",
        description="made by harborapi",
        src_registry=Registry(id=registry),
        dest_namespace="mirror",
        dest_namespace_replace_count=1,
        filters=[ReplicationFilter(type="name", value="team/**"), ReplicationFilter(type="tag", value="v*")],
        trigger=ReplicationTrigger(type="manual"),
        override=True,
        enabled=True,
    )
    policy_id = id_of(await client.create_replication_policy(policy))
    kept = await client.get_replication_policy(policy_id)
    seen["policy"] = [kept.name, kept.dest_namespace, kept.enabled, [f.type for f in kept.filters or []]]
    execution_id = id_of(await client.start_replication(policy_id))
    for _ in range(600):
        execution = await client.get_replication(execution_id)
        if execution.status in FINAL:
            break
        await asyncio.sleep(0.1)
    seen["execution"] = [execution.status, execution.trigger, execution.total, execution.succeed, execution.failed]
    seen["listed"] = [e.id == execution_id for e in await client.get_replications(policy_id=policy_id, status="Succeed")]
    tasks = await client.get_replication_tasks(execution_id, sort="id")
    seen["tasks"] = [[t.status, t.operation, t.resource_type, t.src_resource, t.dst_resource] for t in tasks]
    seen["logs"] = [await client.get_replication_task_log(execution_id, t.id) for t in tasks]
    await client.stop_replication(execution_id)
    await client.update_replication_policy(policy_id, policy.model_copy(update={"enabled": False}))
    try:
        await client.start_replication(policy_id)
    except HarborAPIException as error:
        seen["disabled"] = [error.status_code, [e.message for e in error.errors]]
    await client.delete_replication_policy(policy_id)
    seen["left"] = [p.name for p in await client.get_replication_policies()]
    return seen


print(json.dumps(asyncio.run(main(sys.argv[1]))))
