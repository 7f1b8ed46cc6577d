/** What people are asked: a key, the details of a new instrument. */

const byId = (id) => document.getElementById(id);

/** Open a dialog; return a promise of whether it was closed with its main button. */
function asked(dialog) {
  return new Promise((done) => {
    dialog.returnValue = "";
    dialog.addEventListener("close", () => done(dialog.returnValue === "ok"), { once: true });
    dialog.showModal();
  });
}

const WANTED = "This server wants an API key that may read. It is kept until this tab is closed.";

/** Ask for a key. why: what was wrong with the one before. Return null when nobody gives one. */
export async function askKey(why) {
  const field = byId("key");
  byId("key-why").textContent = why ? `${why}. ${WANTED}` : WANTED;
  field.value = "";
  const given = await asked(byId("key-dialog"));
  const key = field.value.trim();
  field.value = "";
  return given && key ? key : null;
}

/** Ask for the details of a new instrument until `add(fields)` succeeds; return its name, null when it was left. */
export async function askInstrument(name, add) {
  const error = byId("add-error");
  byId("add-symbol").textContent = name;
  for (const id of ["add-name", "add-digits", "add-currency"]) byId(id).value = "";
  error.textContent = "";
  while (await asked(byId("add-dialog"))) {
    const digits = byId("add-digits").value;
    const fields = { symbol: name };
    if (byId("add-name").value.trim()) fields.name = byId("add-name").value.trim();
    if (byId("add-currency").value) fields.currency = byId("add-currency").value.toUpperCase();
    if (digits !== "") fields.digits = Number(digits);
    try {
      return await add(fields);
    } catch (refused) {
      error.textContent = refused.message;
    }
  }
  return null;
}

export const showAlerts = () => asked(byId("alerts-dialog"));
export const showHelp = () => asked(byId("help-dialog"));
