import { chromium, type Browser } from 'playwright-core'
import type { Test } from 'tap'
import { find } from './tools.js'

const executablePath = find('chromium')

// Background services that call home at each start.
const quiet = ['--disable-background-networking', '--disable-component-update', '--disable-sync', '--disable-quic', '--no-first-run']

/** A headless browser, which ends with the test. */
export async function launch (t: Test): Promise<Browser> {
  // Chromium has no sandbox for root, the user of containers; it loads only pages of the test.
  const browser = await chromium.launch({ executablePath, args: ['--no-sandbox', '--disable-gpu', ...quiet] })
  t.teardown(() => browser.close())
  return browser
}
