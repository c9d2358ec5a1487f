// Every page with real data, looked at on a desktop and a phone, in light and dark, and kept as a picture.
import { DESKTOP, PHONE } from './watch.mjs';

const VARIANTS = [
  { name: 'desktop', viewport: DESKTOP, colorScheme: 'light', axe: true },
  { name: 'desktop-dark', viewport: DESKTOP, colorScheme: 'dark', axe: false },
  { name: 'phone', viewport: PHONE, colorScheme: 'light', axe: false },
  { name: 'phone-dark', viewport: PHONE, colorScheme: 'dark', axe: true },
];

function camera({ given, watch }) {
  let taken = 0;
  const shoot = async (page, name) => {
    await page.locator('main#main h1').first().waitFor();
    for (const variant of VARIANTS) {
      await page.setViewportSize(variant.viewport);
      await page.emulateMedia({ colorScheme: variant.colorScheme });
      const where = `${name} (${variant.name})`;
      if (variant.axe) await watch.look(page, where);
      const path = `${given.folder}/${name}.${variant.name}.png`;
      await page.screenshot({ path, fullPage: true });
      taken += 1;
    }
    await page.setViewportSize(DESKTOP);
    await page.emulateMedia({ colorScheme: 'light' });
  };
  return { shoot, taken: () => taken };
}

async function signIn(page, given, email) {
  await page.goto(`${given.base}/sign-in`);
  await page.getByLabel('E-mail address').fill(email);
  await page.getByLabel('Password').fill(given.password);
  await page.getByRole('button', { name: 'Sign in' }).click();
}

/** The first owner of an installation comes in through a setup link. */
export async function setup({ given, watch, somebody, keep }) {
  const { shoot } = camera({ given, watch });
  const page = keep(await (await somebody()).newPage());
  await page.goto(given.link);
  await shoot(page, 'setup');
  // Enough for the browser, not for the house.
  await page.getByLabel('Name of the tenant').fill('   ');
  await page.getByLabel('Your e-mail address').fill(given.email);
  await page.getByLabel('Password').fill(given.password);
  watch.expect(422);
  await page.getByRole('button', { name: 'Create tenant and owner' }).click();
  await page.locator('.wrong').first().waitFor();
  await shoot(page, 'setup-wrong');
  await page.getByLabel('Name of the tenant').fill('Globex');
  await page.getByLabel('Password').fill(given.password);
  await page.getByRole('button', { name: 'Create tenant and owner' }).click();
  await page.getByRole('heading', { level: 1, name: 'Sign in' }).waitFor();
  await shoot(page, 'set-up');
  await signIn(page, given, given.email);
  await page.getByRole('heading', { level: 1, name: 'Globex' }).waitFor();
  await shoot(page, 'admin-empty');
}

async function consent(page, account, decision, untick = []) {
  await page.locator('body[data-vk=sandbox]').waitFor();
  await page.getByRole('radio', { name: account }).check();
  for (const scope of untick) await page.getByRole('checkbox', { name: scope }).uncheck();
  await page.getByRole('button', { name: decision }).click();
}

export async function screens({ given, watch, somebody, keep }) {
  const { shoot, taken } = camera({ given, watch });
  const context = await somebody();
  const page = keep(await context.newPage());
  const go = async (path, name, status = 200) => {
    if (status !== 200) watch.expect(status);
    const answer = await page.goto(path.startsWith('http') ? path : `${given.base}${path}`);
    if (answer.status() !== status) throw new Error(`${path}: ${answer.status()}`);
    await shoot(page, name);
  };

  // Without a session.
  await go('/sign-in', 'sign-in');
  await page.getByLabel('E-mail address').fill(given.email);
  await page.getByLabel('Password').fill('not the password at all');
  watch.expect(401);
  await page.getByRole('button', { name: 'Sign in' }).click();
  await page.getByRole('alert').waitFor();
  await shoot(page, 'sign-in-wrong');
  await go(given.links.one, 'hosted-one');
  await go(given.links.many, 'hosted-many');
  await go(given.links.used, 'link-used', 410);
  await go(`${given.base}/connect/unknown`, 'link-expired', 410);
  await go(given.links.portal, 'portal');
  await go('/nothing/here', 'error-404', 404);
  await go(given.links.one_more, 'hosted-slack');

  // Somebody new.
  await signIn(page, given, given.newcomer);
  await page.getByRole('heading', { level: 1, name: 'Connections' }).waitFor();
  await shoot(page, 'connections-empty');
  await go('/activity', 'activity-empty');
  await go('/connections/connect/google', 'preview');
  await page.getByRole('button', { name: 'Continue to Google' }).click();
  await consent(page, given.account, 'Deny');
  await shoot(page, 'result-denied');
  await go('/connections/connect/telegram', 'preview-telegram');
  await page.getByLabel('Token of your bot').fill('123:not-a-token');
  watch.expect(422);
  await page.getByRole('button', { name: 'Connect the bot' }).click();
  await page.locator('.wrong').waitFor();
  await shoot(page, 'preview-telegram-wrong');
  await go('/connections/connect/telegram', 'preview-telegram');
  await page.getByRole('button', { name: /Continue with/ }).click();
  await shoot(page, 'result-awaiting-start');
  await page.goto(`${given.base}/connections/connect/google`);
  await page.getByRole('button', { name: 'Continue to Google' }).click();
  await consent(page, 'grace@example.com', 'Allow', [/gmail/]);
  await shoot(page, 'result-partly');
  await go('/admin', 'error-403', 403);
  await page.goto(`${given.base}/settings`);
  await page.getByRole('button', { name: 'Sign out' }).click();
  await page.getByRole('status').waitFor();
  await shoot(page, 'signed-out');

  // Somebody with a history.
  await signIn(page, given, given.email);
  await page.getByRole('heading', { level: 1, name: 'Connections' }).waitFor();
  await shoot(page, 'connections');
  for (const details of await page.locator('details').all()) await details.evaluate((one) => { one.open = true; });
  await shoot(page, 'connections-open');
  for (const [name, id] of Object.entries(given.connections)) await go(`/connections/${id}`, `detail-${name}`);
  await go('/activity', 'activity');
  await go(`/activity?connection=${given.connections.google}`, 'activity-one');
  await go('/settings', 'settings');
  await go(`/connections/connect/google?connection=${given.connections.lost}`, 'preview-again');
  await page.getByRole('button', { name: 'Continue to Google' }).click();
  await consent(page, given.account, 'Allow');
  await shoot(page, 'result-other-account');
  await page.goto(`${given.base}/connections/connect/google?connection=${given.connections.google}`);
  await page.getByRole('button', { name: 'Continue to Google' }).click();
  await consent(page, given.account, 'Allow');
  await shoot(page, 'result-connected');
  await page.goto(`${given.base}/connections/${given.connections.google}`);
  await page.getByRole('button', { name: 'Disconnect' }).click();
  await shoot(page, 'disconnect');
  await page.getByRole('button', { name: 'Disconnect' }).click();
  await page.getByRole('status').waitFor();
  await shoot(page, 'connections-after');
  await context.clearCookies();

  await signIn(page, given, given.owner);
  await page.getByRole('heading', { level: 1, name: 'Acme' }).waitFor();
  await shoot(page, 'admin');
  await go('/admin/health', 'admin-health');
  await go('/settings', 'settings-owner');
  await context.clearCookies();
  // A form from a page that was open too long.
  await page.goto(`${given.base}/sign-in`);
  await context.clearCookies();
  await page.getByLabel('E-mail address').fill(given.email);
  await page.getByLabel('Password').fill(given.password);
  watch.expect(given.stale_form);
  await page.getByRole('button', { name: 'Sign in' }).click();
  await page.locator('.error-card').waitFor();
  await shoot(page, 'error-stale-form');
  return { taken: taken() };
}
