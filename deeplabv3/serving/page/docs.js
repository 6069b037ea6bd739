// The interface as the service itself describes it in /openapi.json.
"use strict";

for (const place of document.querySelectorAll(".here")) place.textContent = location.origin;
fetch("/openapi.json")
  .then((answer) => answer.json())
  .then((described) => {
    document.getElementById("about").textContent = `${described.info.description} Version ${described.info.version}.`;
    const operations = Object.entries(described.paths).flatMap(([path, methods]) =>
      Object.entries(methods).flatMap(([method, operation]) => written(`${method.toUpperCase()} ${path}`, operation)));
    document.getElementById("operations").append(...operations);
  });

function written(name, operation) {
  const title = made("h2", "");
  title.append(made("code", name));
  const parts = [title, made("p", [operation.summary, operation.description].filter(Boolean).join(". "))];
  if (operation.parameters?.length) parts.push(made("h3", "Parameters"), table(operation.parameters.map((item) => [item.name, item.description, bounds(item.schema)])));
  const bodies = Object.keys(operation.requestBody?.content ?? {});
  if (bodies.length) parts.push(made("h3", "Body"), made("p", bodies.join(" or ")));
  parts.push(made("h3", "Answers"), table(Object.entries(operation.responses).map(([status, item]) => [status, item.description, Object.keys(item.content ?? {}).join(", ")])));
  return parts;
}

function bounds(schema) {
  const parts = [schema.enum?.join(", ") ?? schema.type];
  if (schema.maximum !== undefined) parts.push(`${schema.minimum} to ${schema.maximum}`);
  if (schema.default !== undefined && schema.default !== "") parts.push(`default ${schema.default}`);
  return parts.join("; ");
}

function table(rows) {
  const list = document.createElement("dl");
  for (const [name, text, small] of rows) {
    const value = made("dd", text);
    if (small) value.append(made("small", small));
    list.append(made("dt", name), value);
  }
  return list;
}

function made(tag, text) {
  const found = document.createElement(tag);
  found.textContent = text;
  return found;
}
