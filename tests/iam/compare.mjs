// Asks iam-simulate for the decisions of tests/fixtures/iam-decisions.json and prints the differences.
//
//   npm install --prefix /tmp/iam-simulate @cloud-copilot/iam-simulate
//   node tests/iam/compare.mjs /tmp/iam-simulate
//
// It fails when the differences are other ones than the table names under "others".

import { readFileSync } from "node:fs";
import { resolve } from "node:path";
import { pathToFileURL } from "node:url";

const NAME = "iam-simulate";
const library = resolve(process.argv[2], "node_modules/@cloud-copilot/iam-simulate/dist/esm/index.js");
const { runSimulation } = await import(pathToFileURL(library));
const table = JSON.parse(readFileSync(new URL("../fixtures/iam-decisions.json", import.meta.url), "utf8"));

const document = (policy) => (Array.isArray(policy) ? { Version: "2012-10-17", Statement: policy } : policy);
const named = (policy) => ({ name: "policy", policy: document(policy) });
const everything = named([{ Effect: "Allow", Action: "*", Resource: "*" }]);

async function answer({ principal, action, resource, keys = {}, policies }) {
  const caller = table.principals[principal];
  const { identity, trust, session, boundary } = policies;
  // A key with one value is a text; the library turns it into a list where the service says so.
  const contextVariables = Object.fromEntries(
    Object.entries(keys).map(([name, values]) => [name, values.length === 1 ? values[0] : values]),
  );
  if (caller.role !== undefined) contextVariables["aws:PrincipalArn"] ??= caller.role;
  const given = policies.resource ?? trust;
  const response = await runSimulation(
    {
      request: {
        principal: caller.service ?? caller.arn,
        action,
        resource: { resource, accountId: table.account },
        contextVariables,
      },
      identityPolicies: identity === undefined || identity.length === 0 ? [] : [named(identity)],
      serviceControlPolicies: [{ orgIdentifier: "root", policies: [everything] }],
      resourceControlPolicies: [],
      resourcePolicy: given && document(given),
      sessionPolicy: session && document(session),
      permissionBoundaryPolicies: boundary && [named(boundary)],
    },
    {},
  );
  if (response.resultType === "error") return `an error: ${JSON.stringify(response.errors)}`;
  const results = response.resultType === "single" ? [response.result] : response.results;
  const ignored = results.flatMap((result) => result.ignoredContextKeys ?? []);
  const seen = Object.keys(keys).filter((name) => ignored.includes(name));
  const words = { Allowed: "allowed", ExplicitlyDenied: "explicit", ImplicitlyDenied: "implicit" }[response.overallResult];
  return seen.length === 0 ? words : `${words}, without ${seen.join(", ")}`;
}

let [same, failed] = [0, 0];
for (const decision of table.decisions) {
  const found = await answer(decision);
  const reason = decision.others?.[NAME];
  const equal = found === decision.expected.split(" ")[0];
  if (equal) same += 1;
  else console.log(`${decision.name}: ${found}, not ${decision.expected}${reason ? ` (${reason})` : ""}`);
  if (equal === (reason !== undefined)) failed += 1;
}
console.log(`${same} of ${table.decisions.length} decisions are the same; ${failed} are not as the table says.`);
process.exitCode = failed === 0 ? 0 : 1;
