// A shop window on the API: everything shown here was asked for at /v1.
"use strict";
const $ = (id) => document.getElementById(id);
const state = { users: [], user: null, shown: new Map(), names: new Map(), asked: 0 };

async function call(path, body, method = body ? "POST" : "GET") {
  const headers = { "content-type": "application/json" };
  const key = sessionStorage.getItem("key");
  if (key) headers.authorization = `Bearer ${key}`;
  const reply = await fetch(path, { method, headers, body: body && JSON.stringify(body) });
  if (reply.status === 401) $("access").hidden = false;
  if (!reply.ok) {
    const problem = await reply.json().catch(() => ({}));
    throw new Error(problem.detail || `the service answered ${reply.status}`);
  }
  return reply.json();
}

function say(text, bad = false) {
  $("status").textContent = text;
  $("status").classList.toggle("bad", bad);
}

const telling = (work) => (...given) => work(...given).catch((error) => say(error.message, true));
const idPath = (id) => encodeURIComponent(String(id));

function face(item) {
  const box = document.createElement("span");
  box.className = "face";
  box.setAttribute("aria-hidden", "true");
  const word = item.category || item.title;
  box.style.setProperty("--hue", [...word].reduce((sum, letter) => (sum * 31 + letter.codePointAt(0)) % 360, 7));
  if (item.image) {
    const picture = new Image();
    picture.src = item.image;
    picture.alt = "";
    picture.loading = "lazy";
    box.append(picture);
  } else {
    box.textContent = [...item.title.trim()].slice(0, 1).join("").toUpperCase();
  }
  return box;
}

function facts(item) {
  const price = item.price === null ? null : item.price.toFixed(2);
  return [item.category, item.brand, price].filter(Boolean).join(" · ");
}

function opener(item, note = facts(item)) {
  const button = document.createElement("button");
  button.type = "button";
  button.className = "open";
  const words = document.createElement("span");
  words.className = "words";
  const title = document.createElement("b");
  title.textContent = item.title;
  const small = document.createElement("small");
  small.textContent = note;
  words.append(title, small);
  button.append(face(item), words);
  button.addEventListener("click", telling(() => show(item)));
  return button;
}

function row(item, note) {
  const line = document.createElement("li");
  line.append(opener(item, note));
  return line;
}

function fill(list, items, none) {
  list.replaceChildren(...items);
  if (!items.length) list.append(Object.assign(document.createElement("li"), { className: "empty", textContent: none }));
}

function card(item, before, beside) {
  const made = $("card").content.firstElementChild.cloneNode(true);
  made.querySelector(".open").replaceWith(opener(item));
  const reason = made.querySelector(".reason");
  reason.textContent = item.reason.text;
  reason.classList.add(item.reason.kind);
  const buy = made.querySelector(".buy");
  buy.setAttribute("aria-label", `Buy ${item.title}`);
  buy.addEventListener("click", telling(() => purchase(item)));
  if (before && !before.includes(String(item.item_id))) made.classList.add("fresh");
  if (beside && !beside.includes(String(item.item_id))) made.classList.add("alone");
  return made;
}

async function purchase(item) {
  await call("/v1/events", { events: [{ user_id: state.user, item_id: item.item_id }] });
  const { fresh, moved } = await refresh();
  const change = fresh ? `${fresh} of the recommendations are new` : `the recommendations ${moved ? "moved" : "stay"}`;
  say(`${item.title} bought; ${change}.`);
}

function ask(version) {
  const category = $("category").value;
  return call("/v1/recommend", {
    user_id: state.user, k: 12, version: version || null,
    filters: category ? { category: [category] } : {}, ...($("unseen").checked ? { exclude_seen: true } : {}),
  });
}

const idsOf = (answer) => answer.items.map((item) => String(item.item_id));

function column(answer, place, other) {
  const before = state.shown.get(place);
  const known = idsOf(answer);
  const beside = other && idsOf(other);
  const box = document.createElement("div");
  const title = document.createElement("h3");
  const shared = beside && known.filter((id) => beside.includes(id)).length;
  const notes = [state.names.get(answer.version) || answer.version.slice(0, 8)];
  if (!answer.user_known) notes.push("nothing is known of this customer");
  if (beside) notes.push(`${shared} of ${known.length} in both`);
  title.textContent = `Model ${notes.join(" · ")}`;
  const list = document.createElement("ol");
  list.className = "cards";
  fill(list, answer.items.map((item) => card(item, before, beside)), "Nothing passes this filter.");
  box.append(title, list);
  const fresh = before ? known.filter((id) => !before.includes(id)).length : 0;
  return { box, known, fresh, moved: before && before.join() !== known.join() };
}

async function refresh() {
  const turn = ++state.asked;
  const other = $("other").value;
  const [past, ...answers] = await Promise.all([
    call(`/v1/users/${idPath(state.user)}/history?k=40`),
    ...[$("version").value, other].slice(0, other ? 2 : 1).map(ask),
  ]);
  if (turn !== state.asked) return {}; // somebody else was chosen meanwhile
  fill($("bought"), past.items.map((item) => row(item, item.timestamp ? item.timestamp.slice(0, 10) : "")), "Nothing yet.");
  $("bought-count").textContent = past.items.length ? "newest first" : "";
  const shown = answers.map((answer, place) => column(answer, place, answers[1 - place]));
  shown.forEach((each, place) => state.shown.set(place, each.known));
  $("columns").classList.toggle("two", shown.length > 1);
  $("columns").replaceChildren(...shown.map((each) => each.box));
  const categories = new Set([...$("category").options].map((option) => option.value));
  for (const label of new Set(past.items.map((item) => item.category).filter(Boolean).sort())) {
    if (!categories.has(label)) $("category").add(new Option(label, label));
  }
  return shown[0];
}

async function choose(user) {
  state.user = user;
  state.shown.clear();
  $("user").value = user;
  $("category").length = 1;
  history.replaceState(null, "", `#${idPath(user)}`);
  await refresh();
  say("");
}

async function show(item) {
  const path = `/v1/items/${idPath(item.item_id)}`;
  const [similar, together] = await Promise.all([call(`${path}/similar?k=5`), call(`${path}/bought-together?k=5`)]);
  const title = Object.assign(document.createElement("h2"), { id: "item-title", textContent: item.title });
  $("item-face").replaceChildren(face(item), title);
  $("item-facts").textContent = [facts(item), `id ${item.item_id}`].filter(Boolean).join(" · ");
  fill($("similar"), similar.items.map((other) => row(other)), "Nothing is like it.");
  fill($("together"), together.items.map((other) => row(other)), "Never bought with anything else.");
  if (!$("item").open) $("item").showModal();
  $("item").scrollTop = 0;
}

function nameOf(model) {
  const standing = model.in_production ? " (in production)" : model.trial ? ` (${model.trial.kind}, ${model.trial.percent}%)` : "";
  return model.version.slice(0, 8) + standing;
}

async function begin() {
  const [users, models] = await Promise.all([call("/v1/users?k=200"), call("/v1/models")]);
  $("access").hidden = true;
  state.users = users;
  $("users").replaceChildren(...users.map((user) => new Option(user)));
  const loaded = models.models.filter((model) => model.loaded);
  state.names = new Map(loaded.map((model) => [model.version, nameOf(model)]));
  const options = (chosen) => loaded.map((model) => new Option(nameOf(model), model.version, chosen(model), chosen(model)));
  $("version").replaceChildren(...options((model) => model.in_production));
  $("other").replaceChildren(new Option("nothing", ""), ...options((model) => model.trial !== null));
  await choose(decodeURIComponent(location.hash.slice(1)) || users[0] || "somebody new");
}

$("who").addEventListener("submit", (event) => {
  event.preventDefault();
  telling(choose)($("user").value.trim() || "somebody new");
});
$("next").addEventListener("click", () => {
  const place = state.users.indexOf(state.user) + 1;
  telling(choose)(state.users[place % Math.max(state.users.length, 1)] || "somebody new");
});
$("access").addEventListener("submit", (event) => {
  event.preventDefault();
  sessionStorage.setItem("key", $("key").value);
  telling(begin)();
});
for (const id of ["version", "other", "category", "unseen"]) {
  $(id).addEventListener("change", () => {
    state.shown.clear();
    telling(refresh)();
  });
}
telling(begin)();
