// What every walk begins with: a vault that two of three people open, documents taken in, people with accounts, a sealed box.

// A recipe that is done in a minute or so.
export const recipe = (steps) => `name = "handbook"
base = "moat-starter"
seed = 1

[split]
held_out = 0.15

[train]
method = "lora"
max_steps = ${steps}
epochs = 50.0
sequence_length = 128
micro_batch = 4
checkpoint_every = 10

[lora]
rank = 8
alpha = 16.0

[optimizer]
learning_rate = 1e-3
`;

// What opens the vault besides the shares.
export const PASSPHRASE = "two mice & a + in the night";

// Whoever sees the box without accounts may make them in browsers; otherwise the command line does.
export async function prepare(site, withoutAccounts = async () => {}) {
  const shares = site.moat(["vault", "init", "--shares", "2/3"]);
  site.moat(["vault", "add-slot"], `${PASSPHRASE}\n`);
  site.moat(["base", "import", "config/bases/moat-starter"]);
  site.moat(["scan"]);
  await withoutAccounts();
  if (Object.keys(site.people).length === 0) site.setUp(["ada:steward,engineer,admin:60001", "ben:approver:60002", "eve:auditor:60003"]);
  await site.stop("SIGTERM");
  await site.start();
  return shares;
}
