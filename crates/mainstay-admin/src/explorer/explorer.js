// Reads /openapi.json and shows each operation with its parameters, bodies, answers and a curl command.
// Text enters the page by textContent only, so that nothing in a document can become markup.
"use strict";

const METHODS = ["get", "put", "post", "delete", "options", "head", "patch", "trace"];

function element(name, text, className) {
  const node = document.createElement(name);
  if (text !== undefined) node.textContent = text;
  if (className) node.className = className;
  return node;
}

function resolve(document, schema) {
  if (!schema || !schema.$ref) return schema || {};
  const name = schema.$ref.split("/").pop();
  return (document.components && document.components.schemas && document.components.schemas[name]) || {};
}

// An example value of a schema; `depth` ends documents that refer to themselves.
function example(document, schema, depth) {
  schema = resolve(document, schema);
  if (depth > 6) return null;
  if (schema.example !== undefined) return schema.example;
  if (schema.examples && schema.examples.length) return schema.examples[0];
  if (schema.enum) return schema.enum[0];
  const variants = schema.oneOf || schema.anyOf;
  if (variants) return example(document, variants.find((one) => one.type !== "null") || variants[0], depth + 1);
  if (schema.allOf) return Object.assign({}, ...schema.allOf.map((part) => example(document, part, depth + 1)));
  const type = Array.isArray(schema.type) ? schema.type.find((one) => one !== "null") : schema.type;
  if (type === "object" || schema.properties) {
    const object = {};
    for (const [key, value] of Object.entries(schema.properties || {})) object[key] = example(document, value, depth + 1);
    return object;
  }
  if (type === "array") return [example(document, schema.items, depth + 1)];
  if (type === "integer" || type === "number") return 1;
  if (type === "boolean") return true;
  return schema.format || "text";
}

function typeOf(document, schema) {
  const name = schema && schema.$ref ? schema.$ref.split("/").pop() : "";
  const inner = resolve(document, schema);
  const type = Array.isArray(inner.type) ? inner.type.join(" or ") : inner.type || "";
  return [name || type, inner.format].filter(Boolean).join(" ");
}

function curl(document, path, method, operation) {
  const base = (document.servers && document.servers[0] && document.servers[0].url) || "";
  const quote = (text) => "'" + text.replaceAll("'", "'\\''") + "'";
  let command = "curl -i";
  if (method !== "get") command += " -X " + method.toUpperCase();
  const body = operation.requestBody && operation.requestBody.content && operation.requestBody.content["application/json"];
  if (body) {
    command += " -H 'content-type: application/json' -d " + quote(JSON.stringify(example(document, body.schema, 0)));
  }
  return command + " " + quote(base + path);
}

function showOperation(document, path, method, operation) {
  const details = element("details");
  details.dataset.text = (method + " " + path + " " + (operation.summary || "")).toLowerCase();
  const summary = element("summary");
  summary.append(element("span", method.toUpperCase(), "method " + method), element("code", path), element("span", operation.summary || ""));
  details.append(summary);
  if (operation.description) details.append(element("p", operation.description));

  if (operation.parameters && operation.parameters.length) {
    details.append(element("h4", "Parameters"));
    const table = element("table");
    for (const parameter of operation.parameters) {
      const row = element("tr");
      row.append(
        element("td", parameter.name + (parameter.required ? " (required)" : "")),
        element("td", parameter.in),
        element("td", typeOf(document, parameter.schema)),
        element("td", parameter.description || ""),
      );
      table.append(row);
    }
    details.append(table);
  }
  for (const [type, content] of Object.entries((operation.requestBody && operation.requestBody.content) || {})) {
    details.append(element("h4", "Body, " + type + ": " + typeOf(document, content.schema)));
    details.append(element("pre", JSON.stringify(example(document, content.schema, 0), null, 2)));
  }
  for (const [status, response] of Object.entries(operation.responses || {})) {
    const contents = Object.entries(response.content || {});
    const shapes = contents.map(([type, content]) => type + ": " + typeOf(document, content.schema)).join(", ");
    details.append(element("h4", status + " " + (response.description || "") + (shapes ? ", " + shapes : "")));
    if (status.startsWith("2") && contents.length) {
      details.append(element("pre", JSON.stringify(example(document, contents[0][1].schema, 0), null, 2)));
    }
  }
  details.append(element("h4", "Try it"), element("pre", curl(document, path, method, operation)));
  return details;
}

async function main() {
  const list = document.getElementById("operations");
  const answer = await fetch("/openapi.json");
  if (!answer.ok) {
    list.replaceChildren(element("p", "The OpenAPI document could not be read: status " + answer.status));
    return;
  }
  const api = await answer.json();
  const title = api.info ? api.info.title + " " + api.info.version : "API explorer";
  document.getElementById("title").textContent = title;
  document.title = title;
  list.replaceChildren();
  for (const [path, item] of Object.entries(api.paths || {})) {
    for (const method of METHODS) {
      if (item[method]) list.append(showOperation(api, path, method, item[method]));
    }
  }
  document.getElementById("filter").addEventListener("input", (event) => {
    const wanted = event.target.value.toLowerCase();
    for (const details of list.children) details.hidden = !details.dataset.text.includes(wanted);
  });
}

main().catch((error) => {
  document.getElementById("operations").replaceChildren(element("p", "The explorer failed: " + error));
});
