#!/bin/bash
# Writes the configuration of GitLab Runner with the authentication tokens, which it reads from Systems Manager or Secrets Manager.
# Runs as the runner's user, before each start of the runner. A token is in no argument, no output and no file but that one.
set -euo pipefail
umask 077

settings=/etc/gitlab-runner
written=/var/lib/gitlab-runner/config.toml
# Region, then a line for each runner: its name and the ARN of its token.
{ read -r region; mapfile -t runners; } <"$settings/tokens"
config=$(<"$settings/config.toml.in")

fail() {
    echo "write-runner-config: $1" >&2
    exit 1
}

for line in "${runners[@]}"; do
    read -r name arn <<<"$line"
    case $arn in
        arn:*:ssm:*)
            # The name of a parameter in a folder begins with a slash, which its ARN has as separator.
            parameter=${arn#*:parameter/}
            case $parameter in */*) parameter=/$parameter ;; esac
            token=$(aws ssm get-parameter --region "$region" --name "$parameter" --with-decryption --query Parameter.Value --output text) ||
                fail "the token of the runner $name cannot be read: is there a SecureString parameter $arn, and may the role of this host read it and its key?"
            ;;
        arn:*:secretsmanager:*)
            token=$(aws secretsmanager get-secret-value --region "$region" --secret-id "$arn" --query SecretString --output text) ||
                fail "the token of the runner $name cannot be read: is there a secret $arn, and may the role of this host read it and its key?"
            ;;
        *) fail "the runner $name has no token: $arn is no ARN of a parameter or secret" ;;
    esac
    case $token in
        glrt-*[!A-Za-z0-9._-]* | glrt-) fail "the token of the runner $name in $arn has characters that no token has" ;;
        glrt-*) ;;
        *) fail "$arn has no authentication token of a runner, which begins with glrt-: make a runner in GitLab, and store the token that it shows" ;;
    esac
    config=${config//"@TOKEN:$name@"/$token}
done

# In one step, so that a runner never reads half a file.
printf '%s\n' "$config" >"$written.new"
mv -f "$written.new" "$written"
