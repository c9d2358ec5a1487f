// One story of a person in Chromium: `person.mjs STORY`, with addresses and words as one JSON object on stdin. What the
// story has to tell is one JSON object on stdout; status 0 only if everything was as it should be.
import { mkdir } from 'node:fs/promises';
import { text } from 'node:stream/consumers';
import { chromium } from 'playwright-core';
import { keyboard } from './keyboard.mjs';
import { DESKTOP, PHONE, Watch } from './watch.mjs';
import { screens, setup } from './screens.mjs';

const given = JSON.parse(await text(process.stdin));
const stories = { whole, keyboard, hosted, popup, button, own_page, setup, screens, scripts, blunder };
const story = stories[process.argv[2]];
if (!story) {
  process.stderr.write(`person.mjs: the stories are ${Object.keys(stories).join(', ')}\n`);
  process.exit(2);
}

const watch = new Watch(given.base);
const browser = await chromium.launch({ executablePath: given.chromium, args: ['--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage'] });
/** A browser of somebody's own. */
async function somebody({ phone = false, scripts = true } = {}) {
  const context = await browser.newContext({ viewport: phone ? PHONE : DESKTOP, isMobile: phone, hasTouch: phone, javaScriptEnabled: scripts, locale: 'en-GB' });
  context.setDefaultTimeout(15_000);
  watch.over(context);
  return context;
}

let open;
try {
  if (given.folder) await mkdir(given.folder, { recursive: true });
  const told = await story({ given, watch, somebody, consent, keep: (page) => { open = page; return page; } });
  watch.finish();
  process.stdout.write(`${JSON.stringify({ ...told, seen: await watch.everything() })}\n`);
} catch (error) {
  process.stderr.write(`${error.stack}\n`);
  if (watch.wrong.length > 0) process.stderr.write(`seen on the way:\n  ${watch.wrong.join('\n  ')}\n`);
  if (open) process.stderr.write(`the page was ${open.url()}:\n${await open.locator('body').innerText().catch(() => '')}\n`);
  process.exitCode = 1;
} finally {
  await browser.close();
}

/** Waits for the page with this heading; on our own pages looks at it too. */
async function arrive(page, heading) {
  await page.getByRole('heading', { level: 1, name: heading }).waitFor();
  // The tools of the looking are scripts themselves.
  if (given.scripts !== false) await watch.look(page);
}

async function consent(page, account, decision) {
  await page.locator('body[data-vk=sandbox]').waitFor();
  await page.getByRole('radio', { name: account }).check();
  await page.getByRole('button', { name: decision }).click();
}

/** Signs in, connects Google, reads what was given, disconnects, and signs out. */
async function whole({ somebody, keep }) {
  const context = await somebody({ phone: given.phone, scripts: given.scripts });
  const page = keep(await context.newPage());
  await page.goto(`${given.base}/`);
  await arrive(page, 'Sign in');
  await page.getByLabel('E-mail address').fill(given.email);
  await page.getByLabel('Password').fill('not the password at all');
  watch.expect(401);
  await page.getByRole('button', { name: 'Sign in' }).click();
  await page.getByRole('alert').waitFor();
  await arrive(page, 'Sign in');
  await page.getByLabel('Password').fill(given.password);
  // By the keyboard, as many do.
  await page.getByLabel('Password').press('Enter');

  await arrive(page, 'Connections');
  await page.getByRole('heading', { name: 'No keys on the board yet' }).waitFor();
  await page.getByRole('button', { name: 'Connect Google' }).click();
  await arrive(page, 'Connect Google');
  for (const words of given.scope_words) await page.getByText(words, { exact: true }).waitFor();

  // Saying no first is nobody's fault.
  await page.getByRole('button', { name: 'Continue to Google' }).click();
  await consent(page, given.account, 'Deny');
  await page.getByText('You said no at Google, and that is fine.').waitFor();
  await page.goto(`${given.base}/connections/connect/google`);
  await page.getByRole('button', { name: 'Continue to Google' }).click();
  await consent(page, given.account, 'Allow');
  await page.locator('.result').getByText(given.account).first().waitFor();
  if (!new URL(page.url()).pathname.startsWith('/connections/result/') || new URL(page.url()).search) throw new Error(`no clean address: ${page.url()}`);
  if (given.scripts !== false) await watch.look(page);
  for (const words of given.scope_words) await page.getByText(words, { exact: true }).waitFor();

  await page.getByRole('link', { name: 'To your connections' }).click();
  await arrive(page, 'Connections');
  await page.locator('summary').click();
  for (const words of given.scope_words) await page.locator('details').getByText(words, { exact: true }).waitFor();
  await page.getByRole('link', { name: `Details of ${given.account}` }).click();
  await arrive(page, given.account);

  await page.getByRole('button', { name: 'Disconnect' }).click();
  await arrive(page, 'Disconnect this account?');
  await page.getByRole('button', { name: 'Disconnect' }).click();
  await arrive(page, 'Connections');
  await page.getByRole('status').waitFor();
  await page.getByRole('heading', { name: 'No keys on the board yet' }).waitFor();

  await page.goto(`${given.base}/settings`);
  await arrive(page, 'Settings');
  await page.getByRole('button', { name: 'Sign out' }).click();
  await arrive(page, 'Sign in');
  // Nothing of what was seen comes back (WB-08).
  await page.goBack();
  await arrive(page, 'Sign in');
}

/** Two people hold the same link: the first who continues has it. */
async function hosted({ somebody, keep }) {
  const back = new URL(given.return_url);
  watch.allow(back.origin);
  const [curious, right] = [await somebody(), await somebody({ phone: true })];
  await right.route(`${back.origin}/**`, (route) => route.fulfill({ contentType: 'text/html', body: '<!doctype html><title>Back</title><h1>Welcome back</h1>' }));
  const late = await curious.newPage();
  await late.goto(given.link);
  await arrive(late, /asks to use your Google account/);

  const page = keep(await right.newPage());
  await page.goto(given.link);
  await arrive(page, /asks to use your Google account/);
  await page.getByText('Connecting for').waitFor();
  await page.getByRole('button', { name: 'Continue to Google' }).click();
  await consent(page, given.account, 'Allow');
  await page.getByRole('heading', { name: 'Welcome back' }).waitFor();
  const arrived = new URL(page.url());

  watch.expect(410);
  await late.getByRole('button', { name: 'Continue to Google' }).click();
  await arrive(late, 'This link no longer works');
  return { completion_code: arrived.searchParams.get('completion_code'), connect_session: arrived.searchParams.get('connect_session') };
}

/** A platform's page opens a popup and hears how it ended, and nobody else does. */
async function popup({ somebody, keep }) {
  watch.allow(given.origin);
  const context = await somebody();
  const script = 'window.heard = []; addEventListener("message", (e) => heard.push({ origin: e.origin, data: e.data }))';
  await context.route(`${given.origin}/**`, (route) => route.fulfill({ contentType: 'text/html', body: `<!doctype html><title>Platform</title><link rel="icon" href="data:,"><script>${script}</script><h1>Platform</h1>` }));
  const platform = await context.newPage();
  await platform.goto(`${given.origin}/settings`);
  const opened = context.waitForEvent('page');
  await platform.evaluate((link) => { window.open(link, 'connect', 'width=480,height=720'); }, given.link);
  const page = keep(await opened);
  await arrive(page, /asks to use your Google account/);
  await page.getByRole('button', { name: 'Continue to Google' }).click();
  const closed = page.waitForEvent('close');
  await consent(page, given.account, 'Allow');
  await closed;
  await platform.waitForFunction(() => window.heard.length > 0);
  const heard = await platform.evaluate(() => window.heard);
  if (heard.length !== 1 || heard[0].origin !== new URL(given.base).origin) throw new Error(`heard ${JSON.stringify(heard)}`);
  return heard[0].data;
}

/** The button of the guide in a platform's page, with the platform's back end behind it. */
async function button({ somebody, keep }) {
  watch.allow(given.origin);
  const context = await somebody();
  const vault = async (path, body) => {
    const headers = { authorization: `Bearer ${given.key}`, 'content-type': 'application/json' };
    const answer = await fetch(`${given.base}/v1/${path}`, { method: 'POST', headers, body: JSON.stringify(body) });
    return { status: answer.status, contentType: 'application/json', body: await answer.text() };
  };
  const pages = {
    '/settings': () => ({ contentType: 'text/html', body: `<!doctype html><title>Platform</title><link rel="icon" href="data:,"><h1>Platform</h1>${given.snippet}` }),
    '/accounts/connect': ({ provider }) => vault('connect-sessions', { user: 'u-42', providers: [provider], return_url: given.origin, mode: 'popup' }),
    '/accounts/back': ({ connect_session, completion_code }) => vault(`connect-sessions/${connect_session}/confirm`, { user: 'u-42', completion_code }),
  };
  await context.route(`${given.origin}/**`, async (route) => {
    const { pathname } = new URL(route.request().url());
    await route.fulfill(await pages[pathname](JSON.parse(route.request().postData() ?? '{}')));
  });
  const platform = keep(await context.newPage());
  await platform.goto(`${given.origin}/settings`);
  const opened = context.waitForEvent('page');
  await platform.getByRole('button', { name: 'Connect Google' }).click();
  const page = await opened;
  await arrive(page, /asks to use your Google account/);
  await page.getByRole('button', { name: 'Continue to Google' }).click();
  const closed = page.waitForEvent('close');
  await consent(page, given.account, 'Allow');
  await closed;
  await platform.getByRole('button', { name: `Connected: ${given.account}` }).waitFor();
}

/** A page of the platform's own in place of the vault's, once from where it may stand and once from where it may not. */
async function own_page({ somebody, keep }) {
  watch.allow(given.origin);
  watch.allow(given.elsewhere);
  const context = await somebody();
  // From https to the plain http of this test a browser does not say where a form comes from, unless the page wants it to.
  const body = `<!doctype html><title>Platform</title><meta name="referrer" content="origin"><link rel="icon" href="data:,"><h1>Platform</h1>${given.form}`;
  for (const origin of [given.origin, given.elsewhere]) {
    await context.route(`${origin}/**`, (route) => route.fulfill({ contentType: 'text/html', body }));
  }
  const page = keep(await context.newPage());
  watch.expect(403);
  await page.goto(`${given.elsewhere}/settings`);
  await page.getByRole('button', { name: 'Continue to Google' }).click();
  await arrive(page, 'That came from another site');
  await page.goto(`${given.origin}/settings`);
  await page.getByRole('button', { name: 'Continue to Google' }).click();
  await consent(page, given.account, 'Allow');
  await page.waitForURL(`${given.origin}/**`);
  const { searchParams } = new URL(page.url());
  return { completion_code: searchParams.get('completion_code'), connect_session: searchParams.get('connect_session') };
}

/** Pages with texts that could be taken for scripts: nothing runs, and nothing is asked of anybody else. */
async function scripts({ somebody, watch, keep }) {
  const context = await somebody();
  await context.exposeFunction('stolen', () => watch.note('a text has run'));
  const page = keep(await context.newPage());
  let pages = 0;
  const look = async (tab, path, status = 200) => {
    if (status !== 200) watch.expect(status);
    // Whatever a text has it ask for late is heard, too.
    const answer = await tab.goto(`${given.base}${path}`, { waitUntil: 'networkidle' });
    if (answer.status() !== status) throw new Error(`${path}: ${answer.status()}`);
    // What waits for a person is waited for by hand.
    await tab.keyboard.press('Tab');
    const foreign = await tab.evaluate(() => [...document.querySelectorAll('[src], [href], [action], [data]')]
      .flatMap((one) => ['src', 'href', 'action', 'data'].map((name) => one.getAttribute(name)))
      .filter((value) => value && (/^\s*(javascript|data):/i.test(value) || value.includes('evil.example'))));
    if (foreign.length > 0) watch.note(`${path}: leads to ${foreign.join(', ')}`);
    pages += 1;
  };
  await page.goto(`${given.base}/sign-in`);
  await page.getByLabel('E-mail address').fill(given.email);
  await page.getByLabel('Password').fill(given.password);
  await page.getByLabel('Password').press('Enter');
  await page.getByRole('heading', { level: 1, name: 'Connections' }).waitFor();
  await look(page, '/connections');
  await look(page, '/activity');
  const rest = [...given.ids.entries()];
  await Promise.all(['1', '2', '3', '4'].map(async () => {
    const tab = await context.newPage();
    tab.on('dialog', (dialog) => { watch.note(`a dialog: ${dialog.message()}`); dialog.dismiss(); });
    for (let next = rest.shift(); next; next = rest.shift()) {
      const [id, text] = [next[1], encodeURIComponent(given.strings[next[0]])];
      await look(tab, `/connections/${id}`);
      await look(tab, `/connections/connect/google?connection=${id}`);
      await look(tab, `/activity?connection=${id}`);
      await look(tab, `/oauth/google/callback/int_x?state=s&error=${text}&error_description=${text}&error_uri=${text}`, 400);
    }
  }));
  return { pages };
}

/** A page with everything wrong, so that silence elsewhere means something. */
async function blunder({ somebody, watch }) {
  const context = await somebody();
  const body = `<!doctype html><title>x</title><meta name="viewport" content="width=device-width"><h1>x</h1><input><pre>${'wide '.repeat(200)}</pre><img src="https://elsewhere.example/x.png"><script>alert(1)</script>`;
  await context.route('**/*', (route) => (route.request().url().startsWith('http://127.0.0.1')
    ? route.fulfill({ contentType: 'text/html', headers: { 'content-security-policy': "default-src 'none'; img-src *" }, body })
    : route.abort()));
  const page = await context.newPage();
  await page.goto(`${given.base}/`);
  await watch.look(page);
  const seen = watch.wrong.splice(0);
  for (const wanted of [/Content Security Policy/, /a request to https:\/\/elsewhere.example/, /failed: GET/, /stick out sideways/, /: label /, /: image-alt /]) {
    if (!seen.some((one) => wanted.test(one))) throw new Error(`${wanted} was not seen: ${seen.join('\n')}`);
  }
}
