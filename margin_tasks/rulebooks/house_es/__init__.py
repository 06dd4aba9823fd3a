"""The recommended model: filtered historical expected shortfall of joint scenarios, with limits, add-ons and floors."""
