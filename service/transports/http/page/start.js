// The page at /: a person drops images, and sees which do not belong.

import { create, find, formatNumber } from "./elements.js";
import { ofFile, readDrop } from "./files.js";
import { Page } from "./page.js";
import { Service } from "./service.js";
import { drawWarnings } from "./summary.js";

/** @typedef {import("./answers.js").Description} Description */

/** @param {Description} description */
function showModel(description) {
  find("model").textContent = `Serving ${description.model}. It knows ${description.trained_on}.`;
  const { image, latents, limits, provider } = description;
  /** @type {[string, string][]} */
  const facts = [
    ["Model", description.model], ["Bundle", description.bundle_id.slice(0, 12)], ["Images", `${image.width} x ${image.height}, ${image.channels} channels`],
    ["Latents", latents.filter((latent) => !latent.dead).map((latent) => latent.name).join(", ")], ["Drawing", description.drawing],
    ["Runs on", provider], ["Images in one request", formatNumber(limits.max_images)],
  ];
  find("about").append(
    create("h2", {}, "The model"),
    create("dl", { class: "facts-list" }, ...facts.map(([name, value]) => create("div", {}, create("dt", {}, name), create("dd", {}, value)))),
    drawWarnings(description.remarks) ?? "",
  );
}

/** @param {boolean} wasRefused @returns {Promise<string | null>} */
function askForToken(wasRefused) {
  const dialog = /** @type {HTMLDialogElement} */ (find("token"));
  const field = /** @type {HTMLInputElement} */ (find("token-text"));
  find("token-refused").hidden = !wasRefused;
  field.value = "";
  dialog.returnValue = "";
  if (!dialog.open) dialog.showModal();
  return new Promise((resolve) =>
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "use" ? field.value.trim() : null), { once: true }),
  );
}

async function start() {
  const service = new Service(askForToken);
  /** @type {Description} */
  const description = await service.call("describe");
  showModel(description);
  const page = new Page(service, description);
  for (const id of ["files", "folder"]) {
    const input = /** @type {HTMLInputElement} */ (find(id));
    input.addEventListener("change", () => {
      const files = [...(input.files ?? [])].map(ofFile);
      input.value = ""; // the same files may be chosen again
      page.open(files);
    });
  }
  const drop = find("drop");
  addEventListener("dragover", (event) => {
    event.preventDefault();
    drop.classList.add("over");
  });
  addEventListener("dragleave", () => drop.classList.remove("over"));
  addEventListener("drop", (event) => {
    event.preventDefault();
    drop.classList.remove("over");
    if (event.dataTransfer) page.open(readDrop(event.dataTransfer));
  });
  document.body.dataset.ready = "";
}

start().catch((error) => {
  find("problem").textContent = error.message;
  find("problem").hidden = false;
});
