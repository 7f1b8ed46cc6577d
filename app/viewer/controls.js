/** Controls that the page uses more than once. */

/** Make a row of choices, of which one holds; `set` is told of another. Return a function that chooses. */
export function segments(box, name, choices, chosen, set) {
  const inputs = choices.map((choice) => {
    const label = document.createElement("label");
    const input = document.createElement("input");
    const text = document.createElement("span");
    Object.assign(input, { type: "radio", name, value: choice, checked: choice === chosen });
    input.addEventListener("change", () => {
      label.scrollIntoView({ block: "nearest", inline: "center" });
      set(choice);
    });
    text.textContent = choice;
    label.append(input, text);
    box.append(label);
    if (choice === chosen) requestAnimationFrame(() => label.scrollIntoView({ block: "nearest", inline: "center" }));
    return input;
  });
  return (choice) => {
    const input = inputs.find((one) => one.value === choice);
    if (input && !input.checked) input.click();
  };
}
