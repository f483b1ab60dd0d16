"""What the options ask of the bucket itself: versions kept, a life cycle for those that were replaced, tags.

Only what is asked for is looked at, and of rules and tags only our own: others stay as they are.
https://docs.aws.amazon.com/AmazonS3/latest/API/API_PutBucketLifecycleConfiguration.html
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from polystore_adapters.s3.driver import ClientError, code_of
from polystore_adapters.s3.objects import Bucket
from polystore_adapters.s3.options import Options

_NONE = frozenset({"NoSuchLifecycleConfiguration", "NoSuchTagSet", "NoSuchTagSetError"})


async def differences(bucket: Bucket, options: Options) -> list[str]:
    """What is not as the options ask, in words; empty when all is."""
    found: list[str] = []
    if options.versioning is not None and await _versioned(bucket) is not options.versioning:
        found.append(f"versioning is {'off' if options.versioning else 'on'}")
    if options.noncurrent_days is not None and _rule(bucket, options) not in await _rules(bucket):
        found.append(f"no rule removes what was replaced {options.noncurrent_days} days ago")
    if options.tags.items() - (await _tags(bucket) if options.tags else {}).items():
        found.append("its tags are others")
    return found


async def carry_out(bucket: Bucket, options: Options) -> None:
    """Make the bucket as the options ask. Repeats change nothing."""
    if options.versioning is not None:
        status = "Enabled" if options.versioning else "Suspended"
        await bucket.ask("put_bucket_versioning", VersioningConfiguration={"Status": status})
    if options.noncurrent_days is not None:
        rule = _rule(bucket, options)
        rules = [*(one for one in await _rules(bucket) if one["ID"] != rule["ID"]), rule]
        await bucket.ask("put_bucket_lifecycle_configuration", LifecycleConfiguration={"Rules": rules})
    if options.tags:
        tags = {**await _tags(bucket), **options.tags}
        pairs = [{"Key": name, "Value": value} for name, value in sorted(tags.items())]
        await bucket.ask("put_bucket_tagging", Tagging={"TagSet": pairs})


def _rule(bucket: Bucket, options: Options) -> dict[str, Any]:
    """One for each prefix, since several stores may share a bucket."""
    return {
        "ID": f"polystore {bucket.prefix}".strip(),
        "Status": "Enabled",
        "Filter": {"Prefix": bucket.prefix},
        "Expiration": {"ExpiredObjectDeleteMarker": True},
        "NoncurrentVersionExpiration": {"NoncurrentDays": options.noncurrent_days},
    }


async def _versioned(bucket: Bucket) -> bool:
    answer = await bucket.ask("get_bucket_versioning")
    return bool(answer.get("Status") == "Enabled")


async def _rules(bucket: Bucket) -> list[dict[str, Any]]:
    rules: list[dict[str, Any]] = (await _unless_none(bucket, "get_bucket_lifecycle_configuration")).get("Rules", [])
    return [_plain(one) for one in rules]


def _plain(rule: dict[str, Any]) -> dict[str, Any]:
    """Some servers say an empty condition in words of their own."""
    expiration = {name: value for name, value in rule.get("Expiration", {}).items() if value not in (0, False)}
    return {**rule, **({"Expiration": expiration} if "Expiration" in rule else {})}


async def _tags(bucket: Bucket) -> Mapping[str, str]:
    pairs = (await _unless_none(bucket, "get_bucket_tagging")).get("TagSet", [])
    return {one["Key"]: one["Value"] for one in pairs}


async def _unless_none(bucket: Bucket, operation: str) -> dict[str, Any]:
    try:
        answer: dict[str, Any] = await bucket.ask(operation)
    except ClientError as error:
        if code_of(error) not in _NONE:
            raise
        return {}
    return answer
