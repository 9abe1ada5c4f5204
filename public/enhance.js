// Comforts for browsers with scripts; every page works without this file.
for (const input of document.querySelectorAll('input[data-reveal]')) {
  const button = document.createElement('button')
  button.type = 'button'
  button.className = 'reveal'
  const show = (visible) => {
    input.type = visible ? 'text' : 'password'
    button.textContent = visible ? 'Hide' : 'Show'
    button.setAttribute('aria-label', visible ? 'Hide what you typed' : 'Show what you typed')
  }
  button.addEventListener('click', () => show(input.type === 'password'))
  input.form.addEventListener('submit', () => show(false))
  show(false)
  input.parentElement.classList.add('has-reveal')
  input.insertAdjacentElement('afterend', button)
}
for (const form of document.querySelectorAll('form[data-once]')) {
  form.addEventListener('submit', (event) => {
    if (form.dataset.sent) return event.preventDefault()
    form.dataset.sent = 'yes'
    for (const button of form.querySelectorAll('button[type=submit]')) button.setAttribute('aria-disabled', 'true')
  })
}
addEventListener('pageshow', () => {
  for (const form of document.querySelectorAll('form[data-once]')) {
    delete form.dataset.sent
    for (const button of form.querySelectorAll('button[aria-disabled]')) button.removeAttribute('aria-disabled')
  }
})
