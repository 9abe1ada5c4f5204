// Sends the one form of the page, which takes somebody back to an app; without scripts its button does. What is in it works
// once, so the button is no use afterwards.
const form = document.querySelector('form')
form.submit()
form.querySelector('button').disabled = true
