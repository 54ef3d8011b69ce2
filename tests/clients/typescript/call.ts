// Calls a running misfit with the client that openapi-fetch makes of schema.d.ts.
// Arguments: address, token, folder of PNG files, the ids that are to be flagged.
import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { basename, join } from "node:path";
import createClient from "openapi-fetch";
import type { components, paths } from "./schema.js";

const [address, token, folder, ...flagged] = process.argv.slice(2);
assert(address && token && folder);
const client = createClient<paths>({ baseUrl: address, headers: { Authorization: `Bearer ${token}` } });
const files = readdirSync(folder).sort().map((name) => new File([readFileSync(join(folder, name))], basename(name)));

// The schema calls a file a string: a form holds the files themselves.
const images = files as unknown as string[];

function asForm(body: unknown): FormData {
  const form = new FormData();
  for (const [name, value] of Object.entries(body as object)) {
    if (Array.isArray(value)) value.forEach((each) => form.append(name, each as Blob));
    else form.append(name, new Blob([JSON.stringify(value)], { type: "application/json" }));
  }
  return form;
}

// An answer is JSON unless another form was asked for.
function json<Answer>(call: { data?: Answer; error?: unknown }): Exclude<Answer, string> {
  assert(call.data && typeof call.data !== "string", JSON.stringify(call.error));
  return call.data as Exclude<Answer, string>;
}

function flaggedOf(answer: components["schemas"]["ScoreResponse"]): string[] {
  return answer.items.filter((item) => item.is_outlier).map((item) => item.id).sort();
}

// Every default of the query, as a generated client may send them.
const defaults = { resize: "fit", foreign: "flag", threshold: 0.5, nearest: 0, page: 1 } as const;
const scored = await client.POST("/score", {
  params: { query: defaults },
  body: { images, options: { threshold: 0.5, fdr: 0.1, attributions: "top" } },
  bodySerializer: asForm,
});
assert.deepEqual(flaggedOf(json(scored)), flagged);

const base64 = files.map(async (file) => Buffer.from(await file.arrayBuffer()).toString("base64"));
const asJson = await client.POST("/score", { body: { images: await Promise.all(base64) } });
assert.equal(flaggedOf(json(asJson)).length, flagged.length);

const fitted = await client.POST("/fit", { body: { images }, bodySerializer: asForm });
const compared = await client.POST("/score", {
  body: { images, context: json(fitted).context },
  bodySerializer: asForm,
});
assert.equal(json(compared).context.source, "reference");

const edited = await client.POST("/edit", { body: { images }, bodySerializer: asForm });
assert.deepEqual(json(edited).pictures.map((picture) => picture.id).sort(), flagged);

const sheet = await client.POST("/score", {
  body: { images },
  bodySerializer: asForm,
  headers: { Accept: "image/png" },
  parseAs: "arrayBuffer",
});
assert(sheet.data);
assert.equal(Buffer.from(sheet.data as unknown as ArrayBuffer).subarray(1, 4).toString(), "PNG");

const described = await client.POST("/describe");
assert(json(described).latents.length);
const refused = await client.POST("/describe", { headers: { Authorization: "Bearer no" } });
assert.equal(refused.response.status, 401);
assert.equal(refused.error?.error.code, "unauthenticated");
console.log("every call was answered");
