#!/bin/bash
# Stands for fence_ipmilan: the same parameters, as the fence-agents API gives them; behind it is the lab's power strip.
folder=@FOLDER@
[ "$1" != -o ] || action=$2
while [ -z "$action" ] && read -r line; do
    case "$line" in
        action=*) wanted=${line#*=} ;;
        ip=*) ip=${line#*=} ;;
    esac
done
case "${action:=$wanted}" in
    metadata)
        parameter() { echo "<parameter name=\"$1\" unique=\"0\" required=\"0\"><content type=\"string\"/><shortdesc lang=\"en\">$1</shortdesc></parameter>"; }
        echo '<?xml version="1.0"?><resource-agent name="fence_ipmilan" shortdesc="The power strip of the lab"><longdesc>The power strip of the lab</longdesc><parameters>'
        for name in action ip username password_script lanplus; do parameter "$name"; done
        echo '</parameters><actions>'
        for name in on off reboot status monitor metadata; do echo "<action name=\"$name\"/>"; done
        echo '</actions></resource-agent>' ;;
    *)
        asked=$(mktemp "$folder/XXXXXXXX")
        echo "$action $ip" >"$asked"
        mv "$asked" "$asked.ask"
        until [ -e "$asked.answer" ]; do sleep 0.05; done
        exit "$(<"$asked.answer")" ;;
esac
