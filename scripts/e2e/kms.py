"""A stand-in for AWS KMS, by moto, with two users: one may sign, the other may only ask whose key it is.

Requests are let in by moto's IAM, which checks their signatures with botocore's own code. Says on one line where it
listens and by which credentials it is asked, and ends when it is told to.

moto takes every message for one to hash (it says so of MessageType), where KMS signs a digest as it is. That is put
right here, unless the first argument is "hashing". moto also makes up its keys, and the embedded chain is paid on with
its development keys alone, so that the key is replaced by one of these: the second argument.
"""

import json
import logging
import signal
import sys
import threading

import boto3
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, utils
from flask import request
from moto import settings
from moto.kms.models import kms_backends
from moto.kms.utils import ECDSAPrivateKey
from moto.moto_server.threaded_moto_server import ThreadedMotoServer

REGION = "eu-central-1"
ACCOUNT = "123456789012"


def sign(self, message, signing_algorithm):
    digest = json.loads(request.get_data())["MessageType"] == "DIGEST"
    algorithm = utils.Prehashed(hashes.SHA256()) if digest else hashes.SHA256()
    return self.private_key.sign(message, ec.ECDSA(algorithm))


def user(iam, name, actions):
    """Makes a user who may do these things, and its credentials."""
    iam.create_user(UserName=name)
    statement = {"Effect": "Allow", "Action": actions, "Resource": "*"}
    policy = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    iam.put_user_policy(UserName=name, PolicyName="keys", PolicyDocument=policy)
    made = iam.create_access_key(UserName=name)["AccessKey"]
    return {"AWS_ACCESS_KEY_ID": made["AccessKeyId"], "AWS_SECRET_ACCESS_KEY": made["SecretAccessKey"]}


def main(way, secret):
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    if way != "hashing":
        ECDSAPrivateKey.sign = sign
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    url = f"http://{host}:{port}"

    def client(service):
        return boto3.client(
            service, region_name=REGION, endpoint_url=url, aws_access_key_id="any", aws_secret_access_key="any"
        )

    def key(spec, usage="SIGN_VERIFY"):
        return client("kms").create_key(KeySpec=spec, KeyUsage=usage)["KeyMetadata"]

    made = key("ECC_SECG_P256K1")
    held = kms_backends[ACCOUNT][REGION].keys[made["KeyId"]].private_key
    held.private_key = ec.derive_private_key(int(secret, 16), ec.SECP256K1())
    client("kms").create_alias(AliasName="alias/agent", TargetKeyId=made["KeyId"])
    said = {
        "url": url,
        "region": REGION,
        "key": made["KeyId"],
        "arn": made["Arn"],
        "other": key("ECC_NIST_P256")["KeyId"],
        "signer": user(client("iam"), "signer", ["kms:GetPublicKey", "kms:Sign"]),
        "reader": user(client("iam"), "reader", ["kms:GetPublicKey"]),
    }
    # From here on nobody is let in without a signature that holds.
    settings.INITIAL_NO_AUTH_ACTION_COUNT = 0
    print(json.dumps(said), flush=True)
    stopped = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopped.set())
    stopped.wait()
    server.stop()


if __name__ == "__main__":
    main(*sys.argv[1:])
